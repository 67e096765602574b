"""Which examples a step sees: a pure function of (seed, step), fetched one step ahead by a background thread."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from components.base import Batch
from components.rng import BatchRng, derive_seed
from components.training.config import TrainConfig
from components.training.trainable import Fetch
from components.training.worker import Worker


class Order(Protocol):
    """The order of a collection that is read by its parts: pure, whatever is held."""

    def __len__(self) -> int: ...

    def indices(self, seed: int, step: int, batch_size: int, rows: slice) -> np.ndarray:
        """Examples of these rows of the whole batch of a step. Shapes: (stop - start,) int64."""
        ...

    def expect(self, seed: int, step: int, batch_size: int, rows: slice) -> None:
        """Called before these rows of a step are fetched, steps in order: a time to look ahead."""
        ...


class Shuffled:
    """All examples in one: epochs of fresh permutations."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def indices(self, seed: int, step: int, batch_size: int, rows: slice) -> np.ndarray:
        return global_indices(seed, step, batch_size, self.n)[rows]

    def expect(self, seed: int, step: int, batch_size: int, rows: slice) -> None:
        """Nothing has to be fetched."""


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

    def __init__(self, fetch: Fetch, examples: int | Order, config: TrainConfig, worker: Worker) -> None:
        self.fetch, self.config, self.worker = fetch, config, worker
        self.order: Order = Shuffled(examples) if isinstance(examples, int) else examples

    def at(self, step: int) -> Batch:
        """The batch of a step, on the CPU."""
        config, rows = self.config, self.worker.rows(self.config.batch_size)
        self.order.expect(config.seed, step, config.batch_size, rows)
        indices = self.order.indices(config.seed, step, config.batch_size, rows)
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
