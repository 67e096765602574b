"""How long a piece of work would take if nothing else ran here: wall time less what others took from it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_IDLE = {"idle", "iowait", "guest", "guest_nice"}  # guests are counted as user, too


@dataclass
class Took:
    """Seconds, once the block has ended."""

    waited_s: float = 0.0
    """Wall time."""
    quiet_s: float = 0.0
    """Wall time on a quiet machine."""


@contextmanager
def timed(threads: int) -> Iterator[Took]:
    """Time a block that computes on so many threads of this process.

    Others are what the machine's processors did that this process did not: each of the machine's processors lost its
    share of them. Never less than processor time over threads, which is what the work alone needs; on a machine of
    many processors, where others may have run beside it, that is what is left.
    """
    took = Took()
    began, own, all_work = time.monotonic(), time.process_time(), _worked()
    yield took
    took.waited_s, own = time.monotonic() - began, time.process_time() - own
    others = max(0.0, _worked() - all_work - own)
    quiet = took.waited_s - others / (psutil.cpu_count() or 1)
    took.quiet_s = min(took.waited_s, max(own / threads, quiet))


def _worked() -> float:
    """Seconds that all processors of the machine have worked, or were taken from it."""
    return float(sum(seconds for name, seconds in psutil.cpu_times()._asdict().items() if name not in _IDLE))
