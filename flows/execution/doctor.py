"""What this machine and checkout need, tried for real."""

import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.errors import ConfigError, ConflictError, RcgError, StoreError
from components.store import LocalStore, Store, open_store, prove_store
from flows.execution.cluster import cluster_text
from flows.execution.dvc_state import faults
from flows.execution.project import Project
from flows.tracking.client import probe
from flows.tracking.record import check_database

_MIN_FREE_GB = 2
_PATIENCE_S = 5.0


def examine(project: Project) -> Iterator[tuple[str, str | RcgError]]:
    """Name of each check, and what it found: facts, or the error that says how to mend it."""
    checks: dict[str, Callable[[Project], str]] = {
        "python": _python,
        "params": _params,
        "collection": _collection,
        "store": _store,
        "disk": _disk,
        "device": _device,
        "mlflow": _mlflow,
        "dvc": _dvc,
    }
    if project.settings.executor == "kuberay":
        checks["cluster"] = cluster_text
    for name, check in checks.items():
        try:
            yield name, check(project)
        except RcgError as error:
            yield name, error


def _python(_: Project) -> str:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036  (the message is for people who run it with another interpreter)
        raise ConfigError(
            "Python is too old", got=found, expected="3.11 or newer", fix="make clean setup PYTHON=python3.11"
        )
    return found


def _params(project: Project) -> str:
    return f"params.yaml is complete: {len(type(project.params).model_fields)} sections"


def _collection(project: Project) -> str:
    from components.collection.lock import read_lock
    from components.collection.snapshot import verify_source
    from components.collection.source import open_source
    from flows.identity.fingerprint import LOCK

    if project.lock_text is None:
        raise ConfigError(f"no {LOCK}", fix="`rcg snapshot FOLDER` or `rcg snapshot demo`")
    lock = read_lock(project.root / LOCK)
    unlisted = verify_source(open_source(project.settings.source), lock)
    return f"{lock.count} pictures of {project.settings.source}, {unlisted} not listed yet"


def _store(project: Project) -> str:
    """A real conditional write: some servers ignore the condition and would let two runs commit."""
    store = open_store(project.settings.store, patience_s=_PATIENCE_S)
    prove_store(store, again=True)
    probe_conditional_writes(store)
    return f"{store.uri} honors conditional writes"


def probe_conditional_writes(store: Store) -> None:
    """Raises: StoreError when the store lets a second create or a stale overwrite through."""
    key = f"probe/{uuid.uuid4().hex}"
    etag = store.put(key, b"first", if_absent=True)
    attempts: dict[str, dict[str, Any]] = {
        "a second create": {"if_absent": True},
        "a stale overwrite": {"if_match": f"{etag}-stale"},
    }
    try:
        for what, condition in attempts.items():
            try:
                store.put(key, b"second", **condition)
            except ConflictError:
                continue
            raise StoreError(
                f"the store let {what} through: two runs could both commit", got=store.uri, fix="use another store"
            )
    finally:
        store.delete(key)


def _disk(project: Project) -> str:
    store = open_store(project.settings.store)
    path = store.root if isinstance(store, LocalStore) else project.root
    while not path.exists():
        path = path.parent
    free_gb = shutil.disk_usage(path).free / 1e9
    if free_gb < _MIN_FREE_GB:
        raise StoreError(
            "the disk is nearly full", got=f"{free_gb:.1f} GB free at {path}", expected=f"at least {_MIN_FREE_GB} GB"
        )
    return f"{free_gb:.0f} GB free"


def _device(project: Project) -> str:
    from flows.executors.base import device_name, pick_device

    return f"{device_name(pick_device(project.settings.worker.device))} (RCG_DEVICE={project.settings.worker.device})"


def _mlflow(project: Project) -> str:
    if project.tracking is None:
        return "off"
    check_database(project.tracking.uri)
    probe(project.tracking.uri)
    return project.tracking.uri


def _dvc(project: Project) -> str:
    if not Path(sys.executable).with_name("dvc").exists() and shutil.which("dvc") is None:
        raise ConfigError("dvc is not installed", fix="`make setup`")
    for name in (".git", "dvc.yaml"):
        if not (project.root / name).exists():
            raise ConfigError(f"{name} is missing", got=project.root, fix="run this in a clone of the project")
    if found := faults(project.root):
        left = "; ".join(f"{fault.path.relative_to(project.root)}" for fault in found)
        raise ConfigError("a DVC that was killed left damaged files", got=left, fix="`rcg repro` mends them first")
    return "ready"
