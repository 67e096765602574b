"""Requests to the writer, one file each in the state folder: <key>.pending.json, then .done.json. Kills lose none."""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from components.files import write_whole
from flows.tracking.record import StageRecord, Tracking, to_json

EndStatus = Literal["FINISHED", "FAILED", "KILLED"]


def pending_path(tracking: Tracking, record: StageRecord) -> Path:
    return tracking.state / f"{record.key(tracking)}.pending.json"


def done_path(tracking: Tracking, record: StageRecord) -> Path:
    return tracking.state / f"{record.key(tracking)}.done.json"


def leave_request(tracking: Tracking, record: StageRecord) -> Path:
    """Ask for a run to be tracked, now or by a later command."""
    path = pending_path(tracking, record)
    write_whole(path, to_json(tracking, record))
    done_path(tracking, record).unlink(missing_ok=True)
    return path


def note_end(request: Path, status: EndStatus) -> None:
    """Keep how the stage ended: what the store cannot tell when there is no manifest."""
    write_whole(request, json.dumps(json.loads(request.read_text()) | {"status": status}, sort_keys=True, indent=1))


def end_of(request: Path) -> EndStatus:
    """How the stage ended, if it could say so."""
    status: EndStatus = json.loads(request.read_text()).get("status", "KILLED")
    return status


def mark_done(request: Path) -> None:
    request.replace(request.with_name(request.name.replace(".pending.", ".done.")))


@contextmanager
def locked(path: Path, wait_s: float = 0) -> Iterator[bool]:
    """Whether this process now holds the lock file; it is free again when the block ends or the process dies."""
    deadline = time.monotonic() + wait_s
    with path.open("a") as file:
        held = _try(file.fileno())
        while not held and time.monotonic() < deadline:
            time.sleep(0.05)
            held = _try(file.fileno())
        yield held


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_of(request: Path) -> Path:
    """Held by the writer that works on the request."""
    return request.with_name(request.name.replace(".pending.json", ".lock"))


def owner_lock_of(request: Path) -> Path:
    """Held by the stage process while the stage runs: until then the request is not for others to close."""
    return request.with_name(request.name.replace(".pending.json", ".owner"))
