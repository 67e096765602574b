"""What DVC leaves behind when it is killed: it writes dvc.lock and .dvc/tmp/rwlock in place. Found, and mended.

Nothing is lost by an older dvc.lock, or by none: a stage that DVC then starts again finds its run in the store.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.documents import holds_conflict, read_bytes, read_json
from components.errors import ConfigError, RcgError
from components.files import write_whole
from components.process import pid_exists
from flows.children import git
from flows.tracking.pending import locked
from flows.yaml_files import parse_yaml

LOCK_FILE = "dvc.lock"
KEPT = Path(".rcg/dvc.lock")
"""The last whole dvc.lock that was seen; git-ignored, as what is beside it."""
DAMAGED = Path(".rcg/dvc.lock.damaged")
_RWLOCK = Path(".dvc/tmp/rwlock")
_GUARDS = (Path(".dvc/tmp/lock"), Path(".dvc/tmp/rwlock.lock"))
"""Held by DVC, by flock, while it looks at files, and while it changes rwlock."""


@dataclass(frozen=True)
class Fault:
    """Something that an ended process left in a file, and the bytes that put it right; None: without the file."""

    text: str
    path: Path
    data: bytes | None


def faults(folder: Path) -> list[Fault]:
    """What keeps DVC from working in the folder. Changes nothing; a DVC at work may just be writing."""
    return [fault for fault in (_rwlock_fault(folder), _lock_file_fault(folder)) if fault is not None]


def mend(folder: Path, *, patience_s: float = 5.0) -> list[str]:
    """Put right what ended processes left, and keep a copy of a whole dvc.lock; returns what was done, in words.

    Does nothing while DVC, for longer than `patience_s`, looks at files in the folder.
    Raises: ConfigError when a file cannot be written.
    """
    with _quiet(folder, patience_s) as quiet:
        if not quiet:
            return []
        found = faults(folder)
        try:
            for fault in found:
                _apply(fault, folder)
            _keep(folder)
        except OSError as error:
            raise ConfigError("what DVC left cannot be mended", got=error, fix="make the folder writable") from error
    return [fault.text for fault in found]


def _apply(fault: Fault, folder: Path) -> None:
    if fault.path.name == LOCK_FILE:
        write_whole(folder / DAMAGED, fault.path.read_bytes())
    if fault.data is None:
        fault.path.unlink(missing_ok=True)
    else:
        write_whole(fault.path, fault.data)


def _keep(folder: Path) -> None:
    path, kept = folder / LOCK_FILE, folder / KEPT
    if path.is_file() and (not kept.is_file() or kept.read_bytes() != path.read_bytes()):
        write_whole(kept, path.read_bytes())


@contextlib.contextmanager
def _quiet(folder: Path, patience_s: float) -> Iterator[bool]:
    """Whether no DVC is looking at files here; none begins before the block ends."""
    if not (folder / _RWLOCK).parent.is_dir():
        yield True
        return
    with contextlib.ExitStack() as guards:
        yield all([guards.enter_context(locked(folder / guard, patience_s)) for guard in _GUARDS])


def _rwlock_fault(folder: Path) -> Fault | None:
    """DVC refuses to work with a torn rwlock, or one that names a pid which meanwhile is of another program."""
    path = folder / _RWLOCK
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        alive = {
            "write": {place: info for place, info in found.get("write", {}).items() if _lives(info, folder)},
            "read": {
                place: living
                for place, infos in found.get("read", {}).items()
                if (living := [info for info in infos if _lives(info, folder)])
            },
        }
    except (RcgError, AttributeError, TypeError, KeyError, ValueError):
        return Fault("DVC's file of locks was torn by a process that was killed: removed", path, None)
    present = {kind: found.get(kind, {}) for kind in alive}
    if present == alive:
        return None
    return Fault("DVC's file of locks named processes that have ended: dropped", path, json.dumps(alive).encode())


def _lives(info: dict[str, Any], folder: Path) -> bool:
    """Whether the entry's process is a DVC of this folder; where the system tells nothing of a pid, that it exists."""
    pid = int(info["pid"])
    if not 0 < pid < 2**31 or not pid_exists(pid):
        return False
    process = Path(f"/proc/{pid}")
    try:
        if b"dvc" not in (process / "cmdline").read_bytes():
            return False
        return (process / "cwd").readlink().is_relative_to(folder.resolve())
    except OSError:
        return True


def _lock_file_fault(folder: Path) -> Fault | None:
    path = folder / LOCK_FILE
    if not path.is_file() or _is_whole(data := read_bytes(path, ConfigError)):
        return None
    committed = git(folder, "show", f"HEAD:./{LOCK_FILE}")
    kept = (folder / KEPT).read_bytes() if (folder / KEPT).is_file() else b""
    sources = {"the last whole one": kept, "git": committed.stdout, "nothing": None}
    source, whole = next((name, found) for name, found in sources.items() if found is None or _is_whole(found))
    why = "holds the conflict of a git merge" if holds_conflict(data) else "was torn by a process that was killed"
    said = f"{LOCK_FILE} {why}: made anew from {source}; it lies in {DAMAGED}"
    return Fault(said, path, whole)


def _is_whole(data: bytes) -> bool:
    """Whether it is as DVC writes it: of each stage, what it depends on and what it made, by digest."""
    try:
        stages = parse_yaml(data, LOCK_FILE)["stages"].values()
        items = [item for stage in stages for kind in ("deps", "outs") for item in stage[kind]]
    except (RcgError, AttributeError, TypeError, KeyError):
        return False
    return data.endswith(b"\n") and all(isinstance(item, dict) and {"path", "md5"} <= item.keys() for item in items)
