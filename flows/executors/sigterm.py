"""What a process does when it is told to end."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def on_sigterm(first: Callable[[], None] | None = None) -> Iterator[None]:
    """Call `first` at the first SIGTERM within this block; each later one, or each without `first`, is a SystemExit.

    Signals reach the main thread only: in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left = [] if first is None else [first]

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if not left:
            raise SystemExit(128 + signal.SIGTERM)
        left.pop()()

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
