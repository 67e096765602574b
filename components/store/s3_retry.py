"""Asking a server again while that may help, within a budget of time."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from components.backoff import backoff
from components.store.s3_errors import S3Error

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_log = logging.getLogger(__name__)
T = TypeVar("T")


def persist(attempt: Callable[[bool], T], *, budget_s: float, what: str) -> T:
    """attempt(unsure) until it succeeds or fails for good; waits grow and are jittered.

    `unsure`: an earlier try may have taken effect without our hearing of it. The budget starts with the first failure.
    Raises: S3Error, the last one.
    """
    deadline, waits, unsure = 0.0, backoff(_FIRST_WAIT_S, _LONGEST_WAIT_S), False
    while True:
        try:
            return attempt(unsure)
        except S3Error as failure:
            now = time.monotonic()
            if not failure.is_transient or (deadline and now >= deadline):
                raise
            if not deadline:
                deadline = now + budget_s
                _log.warning("cannot %s yet (%s); trying for %.0f s", what, failure.detail, budget_s)
            unsure = True
        time.sleep(min(next(waits), max(0.0, deadline - time.monotonic())))
