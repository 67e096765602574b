"""Run a function on several gloo ranks of this machine, as an executor would."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run_ranks(n: int, function: Callable[..., Any], *args: Any, timeout_s: float = 120) -> list[Any]:
    """[function(rank, n, *args) for each rank], each in its own process in one process group; all picklable."""
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with tempfile.TemporaryDirectory() as folder:
        work = [(rank, n, f"file://{Path(folder) / 'rendezvous'}", function, args) for rank in range(n)]
        with spawn.Pool(n) as pool:
            return pool.map_async(_rank, work, chunksize=1).get(timeout_s)


def _rank(work: tuple[int, int, str, Callable[..., Any], tuple[Any, ...]]) -> Any:
    os.environ.update(GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    import torch
    import torch.distributed as dist

    rank, n, rendezvous, function, args = work
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=n)
    try:
        return function(rank, n, *args)
    finally:
        dist.destroy_process_group()
