"""Run a function on several gloo ranks of this machine, as an executor would."""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BODY = """
import pickle, sys
sys.path[:] = pickle.loads(sys.stdin.buffer.read())
from tests.support.ranks import work
work(sys.argv[1])
"""


def run_ranks(n: int, function: Callable[..., Any], *args: Any, timeout_s: float = 120) -> list[Any]:
    """[function(rank, n, *args) for each rank], each in its own process in one process group; all picklable.

    Plain processes, because torch's threads do not survive a fork.
    """
    with tempfile.TemporaryDirectory() as folder:
        ranks = []
        for rank in range(n):
            path = Path(folder) / f"{rank}.pickle"
            path.write_bytes(pickle.dumps((rank, n, f"file://{folder}/rendezvous", function, args)))
            environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen([sys.executable, "-c", _BODY, str(path)], stdin=subprocess.PIPE, env=environment)
            ranks.append((path, process))
        try:
            for _, process in ranks:
                assert process.stdin is not None
                process.stdin.write(pickle.dumps(sys.path))
                process.stdin.close()
            codes = [process.wait(timeout_s) for _, process in ranks]
        finally:
            for _, process in ranks:
                process.kill()
                process.wait()
        assert codes == [0] * n, f"ranks ended with {codes}"
        return [pickle.loads(path.with_suffix(".result").read_bytes()) for path, _ in ranks]


def work(task: str) -> None:
    """The body of one rank: reads its task, leaves its result beside it."""
    import torch
    import torch.distributed as dist

    rank, n, rendezvous, function, args = pickle.loads(Path(task).read_bytes())
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=n)
    try:
        result = function(rank, n, *args)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    Path(task).with_suffix(".result").write_bytes(pickle.dumps(result))
