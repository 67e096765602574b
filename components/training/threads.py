"""How many CPU threads a training takes: as many as one step's work keeps busy.

Threads wait for each other at the end of every operation. A thread that another process keeps from its core makes the
rest wait for a time slice, some milliseconds, a hundred times a step and more. So a small model is fastest on one
thread as soon as the machine is shared, and nearly as fast as on several when it is not. The number of threads may move
low-order bits; it follows from the model and the batch and never from a clock.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from components.rng import BatchRng, derive_seed
from components.training.config import TrainConfig
from components.training.trainable import Fetch, Trainable
from components.training.worker import Worker

FLOPS_PER_THREAD = 16e9
"""Of one step on one rank, forward and backward: about a third of a second of a core, long beside the waits."""
_PASSES = 3
"""A backward pass computes twice what a forward pass does."""
_N_ROWS = 2


@contextmanager
def fitting_threads(
    trainable: Trainable, fetch: Fetch, n_examples: int, config: TrainConfig, worker: Worker
) -> Iterator[int]:
    """Inside, torch computes with as many threads as the step keeps busy, at most those that it had; gives the number.

    Leaves the number alone on other devices than a CPU and where `worker.fit_threads` is off.
    """
    before = torch.get_num_threads()
    if not worker.fit_threads or worker.device.type != "cpu" or before == 1:
        yield before
        return
    torch.set_num_threads(1)  # counting is a small step, too
    try:
        n = max(1, min(before, int(step_flops(trainable, fetch, n_examples, config, worker) / FLOPS_PER_THREAD)))
        torch.set_num_threads(n)
        yield n
    finally:
        torch.set_num_threads(before)


def step_flops(trainable: Trainable, fetch: Fetch, n_examples: int, config: TrainConfig, worker: Worker) -> float:
    """Floating-point operations of one step on the largest share of a batch, scaled up from two examples.

    Changes nothing: modules that keep statistics are in eval mode.
    """
    from torch.utils.flop_counter import FlopCounterMode  # 0.1 s, and only CPU trainings count

    n = min(_N_ROWS, n_examples)
    seed = derive_seed(config.seed, "work")
    batch = fetch(np.arange(n), BatchRng(seed, n))
    with in_eval_mode(trainable), FlopCounterMode(display=False) as counter:
        for which in range(len(trainable.optimizer_parameters())):
            trainable(batch, BatchRng(seed, n), which)
    share = -(-config.batch_size // worker.world_size)
    return float(counter.get_total_flops()) * _PASSES * share / n


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Inside, the module and all below it are in eval mode; afterwards each is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
