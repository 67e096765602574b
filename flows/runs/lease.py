"""Who works on a run: a lease with a heartbeat, taken over by compare-and-swap, and fencing of whoever lost it."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import Field

from components.errors import ArtifactError, ConflictError, MissingError, RcgError, StoreError, SupersededError
from components.store.base import ObjectInfo, Store
from components.store.cell import Cell
from flows.identity.artifact import SCHEMA, Record
from flows.runs.process import Process

LEASE = "lease.json"
MISSED_BEATS = 3
"""A holder on another machine counts as dead after so many intervals without a heartbeat."""
_UNKNOWN_INTERVAL_S = 10.0

_log = logging.getLogger(__name__)


class LeaseRecord(Record):
    """lease.json. It is never deleted: a released lease says so."""

    schema_version: int
    attempt: int
    """The fencing number: grows with each holder."""
    holder: Process
    beat: int
    heartbeat: float
    """Unix time of the last beat on the holder's clock; for people. A watcher judges by `beat` and its own clock."""
    interval_s: float = Field(gt=0, le=3600, allow_inf_nan=False)
    released: bool


def read_lease(run: Store) -> tuple[LeaseRecord, str] | None:
    """(lease, etag to replace it); None if nobody ever held it. A damaged one is read as its holder began it."""
    found = Cell(run, LEASE).read()
    return None if found is None else (_parsed(run, found[0]), found[1])


def _parsed(run: Store, data: bytes) -> LeaseRecord:
    """The lease in `data`; where that is damaged the newest attempt's copy, else one of a holder nobody knows."""
    with contextlib.suppress(ArtifactError):
        return LeaseRecord.parse(data, f"{run.uri}/{LEASE}")
    attempt = newest_attempt(run)
    with contextlib.suppress(ArtifactError):
        return LeaseRecord.parse(run.get(f"attempts/{attempt}.json"), f"{run.uri}/attempts/{attempt}.json")
    unknown = Process(host="an unknown machine", boot="", pid=0, started="")
    return _begun(attempt, unknown, _UNKNOWN_INTERVAL_S)


def _begun(attempt: int, holder: Process, interval_s: float) -> LeaseRecord:
    return LeaseRecord(
        schema_version=SCHEMA,
        attempt=attempt,
        holder=holder,
        beat=0,
        heartbeat=time.time(),
        interval_s=interval_s,
        released=False,
    )


def holder_of(run: Store) -> LeaseRecord | None:
    """The lease of a run that was neither released nor left behind by a failed attempt."""
    found = read_lease(run)
    if found is None or found[0].released or run.head(failure_name(found[0].attempt)) is not None:
        return None
    return found[0]


class Watch:
    """Judges whether a holder is dead, by what this process saw of it; clocks of two machines are never compared."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def is_dead(self, lease: LeaseRecord) -> bool:
        if lease.holder.is_gone():
            return True
        now = self._clock()
        if self._seen != (lease.attempt, lease.beat):
            self._seen, self._since = (lease.attempt, lease.beat), now
        return now - self._since > MISSED_BEATS * lease.interval_s


class Lease:
    """The right to write below a run's prefix, kept by a heartbeat thread until release()."""

    def __init__(self, run: Store, record: LeaseRecord, etag: str) -> None:
        self._run, self._record, self._etag = run, record, etag
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="lease heartbeat", daemon=True)
        self._thread.start()

    @property
    def attempt(self) -> int:
        return self._record.attempt

    def check(self) -> None:
        """Raises: SupersededError if somebody else took over. Called before every write."""
        if self._lost:
            raise _superseded(self.attempt)
        check_fence(self._run, self.attempt)

    def release(self) -> None:
        """Give the lease up; if it was lost, leave it to its new holder."""
        self._stop.set()
        self._thread.join()
        if not self._lost:
            self._swap(released=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except StoreError as failure:  # the lease of a dead process is taken over anyway
            _log.warning("the lease was not released: %s", failure.what)

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._record.interval_s):
            try:
                self._swap()
            except RcgError as error:
                _log.warning("no heartbeat: %s", error.what)
            if self._lost:
                return

    def _swap(self, *, released: bool = False) -> None:
        while True:
            changes = {"beat": self._record.beat + 1, "heartbeat": time.time(), "released": released}
            record = self._record.model_copy(update=changes)
            try:
                self._etag = Cell(self._run, LEASE).replace(record.to_json(), self._etag)
            except ConflictError:
                current = read_lease(self._run)
                if current is None or (current[0].attempt, current[0].holder) != (self.attempt, self._record.holder):
                    self._lost = True
                    return
                self._record, self._etag = current  # a beat that was given up for lost had taken effect
            else:
                self._record = record
                return


def acquire(
    run: Store, *, interval_s: float, watch: Watch, on_failed: Callable[[int], None] = lambda _attempt: None
) -> Lease | LeaseRecord:
    """Take the lease of a run if it is free, or its holder released it, is dead or failed; else return its record.

    The new holder has a fencing number, above every earlier one, and its attempts/<n>.json.
    `on_failed` is called with the number of a failed attempt before its lease is taken over; it may raise.
    """
    holder = Process.current()
    while True:
        found = read_lease(run)
        if found is not None:
            is_over = found[0].released or watch.is_dead(found[0])
            if run.head(failure_name(found[0].attempt)) is not None:  # looked for last: a holder writes it first
                on_failed(found[0].attempt)
            elif not is_over:
                return found[0]
        attempt = 1 + max(newest_attempt(run), found[0].attempt if found else 0)
        record = _begun(attempt, holder, interval_s)
        try:
            etag = Cell(run, LEASE).replace(record.to_json(), found[1] if found is not None else None)
        except ConflictError:
            continue  # another driver was faster: look again
        lease = Lease(run, record, etag)
        try:
            run.put(f"attempts/{attempt}.json", record.to_json(), if_absent=True)
        except ConflictError:  # the number is used, so the lease file was lost in between: take the next one
            lease.release()
            continue
        except BaseException:
            with contextlib.suppress(StoreError):
                lease.release()
            raise
        return lease


def newest_attempt(run: Store) -> int:
    """Highest attempt number on record; 0 for none."""
    return max(attempts(run), default=0)


def attempts(run: Store) -> list[int]:
    """Numbers of all attempts on record, oldest first."""
    names = {info.key.split("/")[1].partition(".")[0] for info in run.list("attempts")}
    return sorted(int(name) for name in names if name.isdecimal())


def failure_name(attempt: int) -> str:
    """Where a holder says why its attempt failed. An attempt with such a record is over, released or not."""
    return f"attempts/{attempt}.failure.json"


def check_fence(run: Store, attempt: int) -> None:
    """Raises: SupersededError unless `attempt` still holds the lease. For workers that do not own the Lease object."""
    try:
        record = _parsed(run, run.get(LEASE))
    except MissingError:
        raise _superseded(attempt) from None
    if record.attempt != attempt or record.released:
        raise _superseded(attempt)


def _superseded(attempt: int) -> SupersededError:
    return SupersededError(
        f"attempt {attempt} lost its lease: another process works on this run and this one stops",
        fix="run the same command again: it follows the other one",
    )


class FencedStore:
    """A store that stops a superseded writer at its next write. Reads pass."""

    def __init__(self, store: Store, check: Callable[[], None]) -> None:
        self._store, self._check = store, check

    @property
    def uri(self) -> str:
        return self._store.uri

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        return self._store.get(key, start=start, stop=stop)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        self._check()
        return self._store.put(key, data, if_absent=if_absent, if_match=if_match)

    def head(self, key: str) -> ObjectInfo | None:
        return self._store.head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def upload(self, key: str, path: Path) -> None:
        self._check()
        self._store.upload(key, path)

    def download(self, key: str, path: Path) -> None:
        self._store.download(key, path)

    def delete(self, key: str) -> None:
        self._check()
        self._store.delete(key)

    def local_path(self, key: str) -> Path | None:
        return self._store.local_path(key)
