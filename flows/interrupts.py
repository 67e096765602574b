"""Ctrl-C: a command ends soon, with exit code 130 and no traceback, wherever it is.

A command that is killed loses nothing, so one that has nothing to tidy up, or takes too long, just ends.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

CODE = 130
GRACE_S = 20.0
"""Time for what a command does after the interrupt: it gives its lease back, and ends a Ray of its own."""


_before_end: list[Callable[[], None]] = []


def _end(_number: int, _frame: object) -> None:
    for do in _before_end:
        with contextlib.suppress(Exception):
            do()
    os._exit(CODE)


@contextlib.contextmanager
def before_end(do: Callable[[], None]) -> Iterator[None]:
    """Within this block, what is done before the process ends without having tidied up."""
    _before_end.append(do)
    try:
        yield
    finally:
        _before_end.remove(do)


def _ignored() -> bool:
    """Whether this process was started so that interrupts do not reach it, or this thread is none that they reach."""
    aside = threading.current_thread() is not threading.main_thread()
    return aside or signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def ended_by_an_interrupt() -> None:
    """From now on an interrupt ends the process at once: while it imports, and when its work is over."""
    if not _ignored():
        signal.signal(signal.SIGINT, _end)


@contextlib.contextmanager
def raised_once() -> Iterator[Callable[[], bool]]:
    """Within this block an interrupt is a KeyboardInterrupt. Gives a function that says whether there was one.

    The process ends at a second one, and after GRACE_S if something waits for ever or took the exception for another.
    """
    came: list[int] = []
    if _ignored():
        yield lambda: False
        return

    def on_interrupt(number: int, _frame: object) -> None:
        came.append(number)
        for other in (signal.SIGINT, signal.SIGALRM):
            signal.signal(other, _end)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: bool(came)
    finally:
        if came:
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, before)
