import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.errors import DivergedError
from components.store import LocalStore
from components.training.report import Report
from flows.runs.events import EventWriter, last_event, read_events

PREFIX = "runs/rdm/f"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def steps(store: LocalStore, after: tuple[int, int] = (0, 0)) -> list[tuple[int, int, int]]:
    return [(e.attempt, e.seq, e.step) for e in read_events(store, PREFIX, after=after)]


def test_reports_come_back_in_order(store: LocalStore) -> None:
    assert last_event(store, PREFIX) is None
    for attempt in (2, 10):
        writer = EventWriter(store, PREFIX, attempt, interval_s=0)
        for step in (1, 2):
            writer.on_report(Report(step, {"loss": 0.5 / step}, total_steps=2))
    assert steps(store) == [(2, 1, 1), (2, 2, 2), (10, 1, 1), (10, 2, 2)]
    assert steps(store, after=(2, 2)) == [(10, 1, 1), (10, 2, 2)]
    newest = last_event(store, PREFIX)
    assert newest is not None
    assert (newest.position, newest.metrics, newest.total_steps) == ((10, 2), {"loss": 0.25}, 2)
    assert newest.time_ms > 1.6e12


def test_quick_reports_share_an_object(store: LocalStore) -> None:
    writer = EventWriter(store, PREFIX, 1, interval_s=3600)
    for step in range(5):
        writer.on_report(Report(step))
    assert steps(store) == [(1, 1, 0)], "the first shows at once"
    writer.flush()
    writer.flush()
    assert steps(store) == [(1, 1, 0), *((1, 2, step) for step in range(1, 5))]


def test_a_worker_restarted_within_an_attempt_overwrites_nothing(store: LocalStore) -> None:
    for start in (0, 10):
        writer = EventWriter(store, PREFIX, 1, interval_s=0)
        for step in range(start, start + 2):
            writer.on_report(Report(step))
    assert steps(store) == [(1, 1, 0), (1, 2, 1), (1, 3, 10), (1, 4, 11)]


def test_pictures_are_kept_beside(store: LocalStore) -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    EventWriter(store, PREFIX, 1, interval_s=0).on_report(Report(7, images={"grid of/../x": picture}))
    (event,) = read_events(store, PREFIX)
    (key,) = event.images.values()
    assert key == f"{PREFIX}/events/1/images/00000007-grid_of_.._x.png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(store.get(key)))), picture)


def test_numbers_have_to_be_finite(store: LocalStore) -> None:
    with pytest.raises(DivergedError, match="not finite"):
        EventWriter(store, PREFIX, 1, interval_s=0).on_report(Report(1, {"loss": float("nan")}))
    assert steps(store) == []


@pytest.mark.parametrize("torn", [b"", b"{", b'{"step":1}', b"[" * 100_000, b"\xff"])
def test_a_torn_object_hides_no_other(store: LocalStore, torn: bytes, caplog: pytest.LogCaptureFixture) -> None:
    writer = EventWriter(store, PREFIX, 1, interval_s=0)
    for step in range(3):
        writer.on_report(Report(step))
    for seq in (2, 3):
        store.put(f"{PREFIX}/events/1/{seq:06d}.jsonl", torn)
    assert steps(store) == [(1, 1, 0)]
    newest = last_event(store, PREFIX)
    assert newest is not None
    assert newest.step == 0
    assert not torn or "000002.jsonl" in caplog.text
