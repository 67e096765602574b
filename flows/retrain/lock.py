"""The lock that lets one retraining work at a time, whoever starts it and on whatever machine."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from components.errors import ConflictError
from components.store.base import Prefix, Store
from flows.execution.project import Project
from flows.gate.champion import who
from flows.runs.lease import Lease, Watch, acquire
from flows.runs.process import Process

_HEARTBEAT_S = 10.0
Check = Callable[[], None]


class RunLock(Protocol):
    """Held while a retraining goes on. A cluster's Lease is another one."""

    def held(self) -> AbstractContextManager[Check]:
        """Gives a function that raises SupersededError once the lock is lost.

        Raises: ConflictError naming the holder.
        """
        ...


def open_lock(project: Project) -> RunLock:
    """A Kubernetes Lease where settings name its namespace, else a lock in the store."""
    settings = project.settings.cluster
    if settings.lease_namespace is None:
        return StoreLock(project.store)
    from flows.executors.kuberay.api import KubeApi
    from flows.executors.kuberay.lease import KubeLease

    return KubeLease(KubeApi(settings.lease_namespace, settings.kube_context), f"{who()} {Process.current()}")


class StoreLock:
    """A lease below retrain/ in the store; that of a dead process is taken over."""

    def __init__(self, store: Store) -> None:
        self._folder = Prefix(store, "retrain")

    @contextmanager
    def held(self) -> Iterator[Check]:
        claim = acquire(self._folder, interval_s=_HEARTBEAT_S, watch=Watch())
        if not isinstance(claim, Lease):
            raise ConflictError("a retraining is under way already", got=claim.holder, fix="wait for it, or end it")
        with claim:
            yield claim.check
