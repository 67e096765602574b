"""Ranks of the tests: they stay from call to call, and none that failed or hangs stays."""

import multiprocessing
import os
import time

import pytest

from tests.support.ranks import run_ranks


def pid(_rank: int, _n: int) -> int:
    return os.getpid()


def first_fails_second_hangs(rank: int, _n: int) -> None:
    if rank == 0:
        raise ValueError("a reason")
    time.sleep(900)


@pytest.mark.processes
def test_ranks_stay_and_a_failure_leaves_none_behind() -> None:
    first = run_ranks(2, pid)
    assert len({*first, os.getpid()}) == 3
    assert run_ranks(2, pid) == first
    with pytest.raises(AssertionError, match=r"rank 0: (.*\n)+ValueError: a reason"):
        run_ranks(2, first_fails_second_hangs)
    for ended in first:
        with pytest.raises(ProcessLookupError):
            os.kill(ended, 0)
    (other,) = run_ranks(1, pid)
    assert other not in first
    for process in multiprocessing.active_children():
        if process.pid == other:
            process.kill()
            process.join()
    assert run_ranks(1, pid) != [other], "one that was killed meanwhile is replaced"
    with pytest.raises(AssertionError, match=r"ranks \[0\] do not end"):
        run_ranks(1, pid, timeout_s=0)
