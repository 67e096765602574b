"""Seconds on a quiet machine: what others took is left out, what the work itself waits for is not."""

from collections import namedtuple

import pytest

from flows.execution.budget import clock

Times = namedtuple("Times", "user system idle steal")


@pytest.mark.parametrize(
    ("waited", "own", "others", "processors", "quiet"),
    [
        (10, 20, 0, 2, 10),
        (10, 15, 0, 2, 10),  # a quarter of it ran on one thread, with nobody else there
        (20, 20, 20, 2, 10),  # another process on each processor
        (10, 15, 5, 2, 7.5),
        (10, 20, 300, 64, 10),  # others beside it, on processors that it does not use
        (10, 2, 40, 2, 1),  # counted a moment longer than waited for: never less than the work
    ],
)
def test_what_others_took_is_left_out(
    waited: float, own: float, others: float, processors: int, quiet: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = {"monotonic": 100.0 + waited, "process_time": 7.0 + own}
    now = {"monotonic": 100.0, "process_time": 7.0}
    work = [Times(50.0, 5.0, 1000.0, 2.0), Times(50.0 + own, 5.0, 2000.0, 2.0 + others)]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now["monotonic"])
    monkeypatch.setattr(clock.time, "process_time", lambda: now["process_time"])
    monkeypatch.setattr(clock.psutil, "cpu_times", lambda: work[0] if now["monotonic"] == 100.0 else work[1])
    monkeypatch.setattr(clock.psutil, "cpu_count", lambda: processors)
    with clock.timed(threads=2) as took:
        now.update(after)
    assert took.waited_s == waited
    assert took.quiet_s == quiet
