"""Waiting for servers that do not answer: the job goes on without them, so nothing is given up or started anew."""

import time
from collections.abc import Callable
from typing import TypeVar

from components.backoff import backoff
from components.errors import RetryableError, StoreError, StoreRefusedError
from flows.executors.kuberay.cluster import AccessError, UnreachableError

T = TypeVar("T")
_FIRST_S, _LONGEST_S = 1.0, 15.0
_ACCESS_S = 120.0
"""An API server that has just started refuses its own users for a while."""


def patiently(call: Callable[[], T], say: Callable[[str], None], *, limit_s: float | None = None) -> T:
    """What `call` returns, once the server answers; the first failure is told, and the end of it.

    Raises: its last error after limit_s (None: never); AccessError after two minutes at most.
    """
    start, waits, told = time.monotonic(), backoff(_FIRST_S, _LONGEST_S), False
    while True:
        try:
            result = call()
        except StoreRefusedError:
            raise
        except (UnreachableError, AccessError, StoreError) as error:
            limit, wait_s = _limit(error, limit_s), next(waits)
            if limit is not None and time.monotonic() - start + wait_s > limit:
                raise
            if not told:
                say(f"{error.what}; waiting until it does" if isinstance(error, RetryableError) else error.what)
                told = True
            time.sleep(wait_s)
            continue
        if told:
            say(f"an answer again after {time.monotonic() - start:.0f} s")
        return result


def _limit(error: Exception, limit_s: float | None) -> float | None:
    if isinstance(error, AccessError):
        return _ACCESS_S if limit_s is None else 0.0
    return limit_s
