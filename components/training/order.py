"""Which examples a step sees: a pure function of (seed, step), fetched one step ahead by a background thread."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from components.base import Batch
from components.rng import BatchRng, derive_seed
from components.training.config import TrainConfig
from components.training.trainable import Fetch
from components.training.worker import Worker

Awaited = Callable[["Future[Batch]"], Batch]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order: np.ndarray = torch.randperm(n, generator=generator).numpy()
    return order


def global_indices(seed: int, step: int, batch_size: int, n_examples: int) -> np.ndarray:
    """Examples of the whole batch of a step: epochs of fresh permutations, end to end. Shapes: (batch_size,) int64."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = np.divmod(positions, n_examples)
    return np.concatenate([_permutation(seed, int(e), n_examples)[places[epochs == e]] for e in np.unique(epochs)])


def noise_rng(config: TrainConfig, worker: Worker, step: int, which: int, part: slice | None = None) -> BatchRng:
    """This rank's rows of the noise that optimizer `which` trains with at a step; `part`: some of its rows."""
    rows = worker.rows(config.batch_size)
    start, stop = (rows.start, rows.stop) if part is None else (rows.start + part.start, rows.start + part.stop)
    seed = derive_seed(config.seed, "noise", step, which)
    return BatchRng(seed, config.batch_size, start=start, stop=stop, device=worker.device)


class Batches:
    """This rank's share of each step's batch."""

    def __init__(self, fetch: Fetch, n_examples: int, config: TrainConfig, worker: Worker) -> None:
        self.fetch, self.n_examples, self.config, self.worker = fetch, n_examples, config, worker

    def at(self, step: int) -> Batch:
        """The batch of a step, on the CPU."""
        config, rows = self.config, self.worker.rows(self.config.batch_size)
        indices = global_indices(config.seed, step, config.batch_size, self.n_examples)[rows]
        seed = derive_seed(config.seed, "fetch", step)
        batch = self.fetch(indices, BatchRng(seed, config.batch_size, start=rows.start, stop=rows.stop))
        if self.worker.device.type == "cuda":
            return {name: tensor.pin_memory() for name, tensor in batch.items()}
        return batch

    def between(self, start: int, stop: int, awaited: Awaited = Future.result) -> Iterator[tuple[int, Batch]]:
        """(step, batch on the worker's device) for start <= step < stop; the next one is fetched meanwhile.

        `awaited` gives a batch once it is there.
        """
        device = self.worker.device
        with ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool:
            waiting = deque([pool.submit(self.at, start)] if start < stop else [])
            for step in range(start, stop):
                batch = awaited(waiting.popleft())
                if step + 1 < stop:
                    waiting.append(pool.submit(self.at, step + 1))
                yield step, {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
