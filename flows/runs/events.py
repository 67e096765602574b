"""A run's news in the store: one object per interval, for followers and for replay. S3 cannot append."""

import io
import logging
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from components.documents import parse_mapping, validated
from components.errors import ArtifactError, DivergedError
from components.store.base import Store
from components.training.report import Report
from flows.identity.artifact import Millis, Record, canonical_json

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger(__name__)


class Event(Record):
    """One report of a running stage."""

    attempt: int
    seq: int
    """Number of the object that holds it; grows within an attempt."""
    step: int
    total_steps: int | None
    time_ms: Millis
    metrics: dict[str, float]
    images: dict[str, str]
    """Name -> key of a PNG in the store."""

    @property
    def position(self) -> tuple[int, int]:
        """What read_events() takes as `after` to go on from here."""
        return self.attempt, self.seq


class EventWriter:
    """Writes reports below events/<attempt>/, several to an object if they come faster than one per interval_s."""

    def __init__(self, store: Store, prefix: str, attempt: int, *, interval_s: float) -> None:
        self._store, self._folder = store, f"{prefix}/events/{attempt}"
        self._interval_s = interval_s
        self._seq: int | None = None
        self._waiting: list[bytes] = []
        self._written = -interval_s

    def on_report(self, report: Report) -> None:
        """Raises: StoreError, SupersededError; a finished interval is in the store on return."""
        images = {name: self._save(report.step, name, picture) for name, picture in report.images.items()}
        line: dict[str, Any] = {
            "step": report.step,
            "total_steps": report.total_steps,
            "time_ms": time.time_ns() // 10**6,
            "metrics": {name: float(value) for name, value in report.metrics.items()},
            "images": images,
        }
        try:
            self._waiting.append(canonical_json(line))
        except ValueError as error:
            raise DivergedError(
                "a reported number is not finite", got=line["metrics"], expected="finite numbers"
            ) from error
        if time.monotonic() - self._written >= self._interval_s:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        if self._seq is None:  # a worker that was restarted within an attempt goes on behind what is there
            self._seq = max((seq for _, seq, _ in _objects(self._store, self._folder)), default=0)
        self._seq += 1
        self._store.put(f"{self._folder}/{self._seq:06d}.jsonl", b"".join(line + b"\n" for line in self._waiting))
        self._waiting, self._written = [], time.monotonic()

    def _save(self, step: int, name: str, picture: "np.ndarray") -> str:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="PNG")
        key = f"{self._folder}/images/{step:08d}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.png"
        self._store.put(key, buffer.getvalue())
        return key


def read_events(store: Store, prefix: str, *, after: tuple[int, int] = (0, 0)) -> Iterator[Event]:
    """Reports in the order in which they were made, those beyond position `after`.

    A resumed attempt goes back to its checkpoint, so a step may come twice, with equal metrics.
    """
    for attempt, seq, key in sorted(_objects(store, f"{prefix}/events")):
        if (attempt, seq) > after:
            yield from _parsed(store.get(key), attempt, seq, f"{store.uri}/{key}")


def _parsed(data: bytes, attempt: int, seq: int, where: str) -> Iterator[Event]:
    """The reports in an object; damaged lines are told and passed over, as they must not hide the run."""
    for line in data.splitlines():
        try:
            yield validated(Event, {**parse_mapping(line, where), "attempt": attempt, "seq": seq}, where)
        except ArtifactError:
            _log.warning("%s is damaged: a report is passed over", where)


def last_event(store: Store, prefix: str) -> Event | None:
    """The newest report; None before the first."""
    for attempt, seq, key in sorted(_objects(store, f"{prefix}/events"), reverse=True):
        if found := list(_parsed(store.get(key), attempt, seq, f"{store.uri}/{key}")):
            return found[-1]
    return None


def _objects(store: Store, folder: str) -> Iterator[tuple[int, int, str]]:
    """(attempt, seq, key) of the event objects below a folder."""
    for info in store.list(folder):
        match = re.fullmatch(r".*/events/(\d+)/(\d+)\.jsonl", info.key)
        if match is not None:
            yield int(match[1]), int(match[2]), info.key
