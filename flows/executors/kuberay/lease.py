"""A Kubernetes Lease as the lock of retrainings: renewed while it is held, taken over when that stops."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from components.errors import ConflictError, RcgError, SupersededError
from flows.executors.kuberay.cluster import Object

_log = logging.getLogger(__name__)


class Leases(Protocol):
    """The part of the Kubernetes API that is needed."""

    def lease(self, name: str) -> Object | None: ...
    def put_lease(self, name: str, lease: Object) -> Object:
        """Create or, where metadata has a resourceVersion, replace. Raises: ConflictError."""
        ...


class KubeLease:
    """A flows.retrain.lock.RunLock. Clocks of two machines are never compared: a holder is dead when its lease did
    not change for `duration_s` while this process looked."""

    def __init__(
        self, api: Leases, holder: str, *, name: str = "rcg-retrain", duration_s: float = 30.0, poll_s: float = 2.0
    ) -> None:
        self._api, self._holder, self._name = api, holder, name
        self._duration_s, self._poll_s = duration_s, poll_s
        self._lost, self._renewed = False, 0.0

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Raises: ConflictError naming the holder; UnreachableError, AccessError of the API server."""
        lease = self._take()
        self._renewed = time.monotonic()
        stop = threading.Event()
        thread = threading.Thread(target=self._renew, args=(lease, stop), name="retrain lease", daemon=True)
        thread.start()
        try:
            yield self._check
        finally:
            stop.set()
            thread.join()
            self._release()

    def _check(self) -> None:
        if self._lost or time.monotonic() - self._renewed > self._duration_s:
            raise SupersededError(
                f"the lease {self._name} was lost: another retraining may have taken over", fix="run it again"
            )

    def _take(self) -> Object:
        since, seen = time.monotonic(), None
        while True:
            found = self._api.lease(self._name)
            holder = (found or {}).get("spec", {}).get("holderIdentity")
            if not holder or holder == self._holder or time.monotonic() - since > self._duration_s:
                try:
                    return self._api.put_lease(self._name, self._spelled(found, self._holder))
                except ConflictError:
                    since, seen = time.monotonic(), None
                    continue
            version = (found or {})["metadata"]["resourceVersion"]
            if seen is not None and version != seen:
                raise ConflictError("a retraining is under way already", got=holder, fix="wait for it, or end it")
            seen = version
            time.sleep(self._poll_s)

    def _spelled(self, found: Object | None, holder: str) -> Object:
        metadata = {"name": self._name}
        if found is not None:
            metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, int(self._duration_s)),
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    def _renew(self, lease: Object, stop: threading.Event) -> None:
        while not stop.wait(self._duration_s / 3):
            try:
                lease = self._api.put_lease(self._name, self._spelled(lease, self._holder))
                self._renewed = time.monotonic()
            except ConflictError:
                current = self._current()
                if current is None:
                    self._lost = True
                    return
                lease = current  # our own write, whose answer got lost
            except RcgError as error:
                _log.warning("the lease was not renewed: %s", error.what)

    def _current(self) -> Object | None:
        """The lease, if it is still ours."""
        try:
            found = self._api.lease(self._name)
        except RcgError:
            return None
        return found if found is not None and found["spec"].get("holderIdentity") == self._holder else None

    def _release(self) -> None:
        try:
            found = self._current()
            if found is not None:
                self._api.put_lease(self._name, self._spelled(found, ""))
        except RcgError as error:  # it runs out by itself
            _log.warning("the lease was not released: %s", error.what)
