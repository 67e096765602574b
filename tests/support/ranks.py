"""Run a function on several gloo ranks of this machine, as an executor would."""

import contextlib
import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import pytest

_SETTINGS = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


class Rank(NamedTuple):
    """A process that does one task after another."""

    process: SpawnProcess
    pipe: Connection

    @classmethod
    def start(cls) -> "Rank":
        """Spawned, because torch's threads do not survive a fork. It ends with this process at the latest."""
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in _SETTINGS.items():
                patch.setenv(name, value)
            process.start()
        theirs.close()
        return cls(process, ours)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


_free: list[Rank] = []
"""Ranks without a task. They have imported what the next one needs, which takes seconds of each."""


def run_ranks(n: int, function: Callable[..., Any], *args: Any, timeout_s: float = 120) -> list[Any]:
    """[function(rank, n, *args) for each rank], each in its own process in one process group; all picklable.

    A rank stays for later calls, with what it imported: whatever else the function changes it has to undo. After a
    failure none of this call's ranks stays.
    """
    ranks = [_take() for _ in range(n)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            environment = dict(os.environ) | _SETTINGS
            for i, rank in enumerate(ranks):
                task = (i, n, f"file://{folder}/rendezvous", environment, os.getcwd(), function, args)  # noqa: PTH109
                rank.pipe.send_bytes(pickle.dumps(task))
            results = _results(ranks, timeout_s)
    except BaseException:
        for rank in ranks:
            rank.end()
        raise
    _free.extend(reversed(ranks))
    return results


def _take() -> Rank:
    while _free:
        rank = _free.pop()
        if rank.process.is_alive():
            return rank
        rank.end()
    return Rank.start()


def _results(ranks: list[Rank], timeout_s: float) -> list[Any]:
    """In the order of the ranks. The first failure ends it: the others may wait for that rank for ever."""
    until = time.monotonic() + timeout_s
    results: dict[int, Any] = {}
    while len(results) < len(ranks):
        waiting = {rank.pipe: i for i, rank in enumerate(ranks) if i not in results}
        ready = [pipe for pipe in wait(list(waiting), max(0.0, until - time.monotonic())) if pipe in waiting]
        assert ready, f"ranks {sorted(waiting.values())} do not end within {timeout_s:.0f} s"
        answers = {waiting[rank.pipe]: _answer(rank) for rank in ranks if rank.pipe in ready}
        failures = [f"rank {i}: {answer}" for i, (done, answer) in answers.items() if not done]
        assert not failures, "\n".join(failures)
        results |= {i: answer for i, (_, answer) in answers.items()}
    return [results[i] for i in range(len(ranks))]


def _answer(rank: Rank) -> tuple[bool, Any]:
    try:
        done, answer = pickle.loads(rank.pipe.recv_bytes())
    except (EOFError, ConnectionError):
        rank.process.join()
        return False, f"ended with code {rank.process.exitcode}"
    return done, answer


def _serve(pipe: Connection) -> None:
    """The body of a rank: an answer to each task, until nobody is there to ask."""
    with contextlib.suppress(EOFError):
        while True:
            task = pickle.loads(pipe.recv_bytes())
            try:
                answer = pickle.dumps((True, _work(*task)))
            except BaseException:
                answer = pickle.dumps((False, traceback.format_exc()))
            pipe.send_bytes(answer)


def _work(
    rank: int,
    n: int,
    rendezvous: str,
    environment: dict[str, str],
    folder: str,
    function: Callable[..., Any],
    args: Any,
) -> Any:
    import torch
    import torch.distributed as dist

    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with contextlib.chdir(folder):
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=n)
        try:
            result = function(rank, n, *args)
            dist.barrier()
        finally:
            dist.destroy_process_group()
    return result
