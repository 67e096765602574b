"""How many CPU threads a training takes: as many as one step's work keeps busy.

Threads wait for each other at the end of every operation. A thread that another process keeps from its core makes the
rest wait for a time slice, some milliseconds, a hundred times a step and more. So a small model is fastest on one
thread as soon as the machine is shared, and nearly as fast as on several when it is not. The number of threads may move
low-order bits; it follows from the model and the batch and never from a clock.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from components.training.config import TrainConfig
from components.training.throughput import Work
from components.training.worker import Worker

FLOPS_PER_THREAD = 16e9
"""Of one step on one rank, forward and backward: about a third of a second of a core, long beside the waits."""
_PASSES = 3
"""A backward pass computes about twice what a forward pass does."""


@contextmanager
def fitting_threads(flops: float, worker: Worker) -> Iterator[int]:
    """Inside, torch computes with as many threads as a step of so many FLOPs keeps busy, at most those that it had;
    gives the number.

    Leaves the number alone on other devices than a CPU and where `worker.fit_threads` is off.
    """
    before = torch.get_num_threads()
    if not worker.fit_threads or worker.device.type != "cpu" or before == 1:
        yield before
        return
    n = max(1, min(before, int(flops / FLOPS_PER_THREAD)))
    torch.set_num_threads(n)
    try:
        yield n
    finally:
        torch.set_num_threads(before)


def step_flops(work: Work, config: TrainConfig, worker: Worker) -> float:
    """Floating-point operations of one step on the largest share of a batch, by the forward pass alone."""
    share = -(-config.batch_size // worker.world_size)
    return work.forward * _PASSES * share
