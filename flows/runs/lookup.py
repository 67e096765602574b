"""What the store knows of a run that may or may not exist; for `rcg status` and `rcg explain`."""

import time
from dataclasses import dataclass
from typing import Literal

from components.store.base import Prefix, Store
from flows.runs.events import Event, last_event
from flows.runs.lease import MISSED_BEATS, LeaseRecord, failure_name, newest_attempt, read_lease
from flows.runs.records import CommittedRun, Failure, Spec, load_run, read_record, run_prefix

RunState = Literal["absent", "running", "interrupted", "failed", "complete"]


@dataclass(frozen=True)
class RunStatus:
    """absent: never started. running: its holder shows signs of life. interrupted: it does not, and the next
    `rcg run` resumes. failed: the last attempt ended with `failure`. complete: committed as `run`."""

    state: RunState
    attempt: int
    holder: LeaseRecord | None
    last_event: Event | None
    failure: Failure | None
    run: CommittedRun | None


def run_status(store: Store, stage: str, fingerprint: str, *, verify: bool = False) -> RunStatus:
    """Raises: TamperedError, MissingError for a committed run that is damaged."""
    prefix = run_prefix(stage, fingerprint)
    folder = Prefix(store, prefix)
    run = load_run(store, prefix, verify=verify)
    attempt = newest_attempt(folder)
    found = read_lease(folder)
    holder = found[0] if found is not None else None
    failure = read_record(Failure, folder, failure_name(attempt)) if attempt and run is None else None
    failed = failure is not None and (holder is None or holder.attempt <= attempt)
    if run is not None:
        state: RunState = "complete"
    elif failed:
        state = "failed"
    elif holder is not None and _seems_alive(holder):
        state = "running"
    else:
        state = "interrupted" if attempt or holder is not None else "absent"
    return RunStatus(state, attempt, holder, last_event(store, prefix), failure, run)


def read_spec(store: Store, stage: str, fingerprint: str) -> Spec | None:
    """What a run was to do, e.g. to explain how its identity differs from another; None when it never started."""
    return read_record(Spec, Prefix(store, run_prefix(stage, fingerprint)), "spec.json")


def _seems_alive(lease: LeaseRecord) -> bool:
    """By wall clock, which is good enough to tell people; taking over is decided by flows.runs.lease.Watch."""
    recent = time.time() - lease.heartbeat <= MISSED_BEATS * lease.interval_s
    return not lease.released and recent and not lease.holder.is_gone()
