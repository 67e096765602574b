"""What a component knows of where it runs: its rank, its device, where to checkpoint and how to report."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from components.errors import RetryableError
from components.training.report import Report

T = TypeVar("T")
Room = Callable[[int, Any, Mapping[str, torch.Size]], Mapping[str, Tensor]]
"""(step, rest, shapes by name) of a checkpoint -> the tensors that it is read into."""


class CheckpointStore(Protocol):
    """Resume state of one run: named tensors, and a rest of what JSON holds."""

    def load_latest(self, room: Room) -> int | None:
        """Read the newest intact checkpoint into `room` and return its step; a torn one is skipped with a warning."""
        ...

    def save(self, step: int, tensors: Mapping[str, Tensor], rest: Any, *, wait: bool = False) -> None:
        """Snapshot now, upload in the background (at most one in flight); `wait` returns after it is durable.

        Collective: every rank has all tensors and saves a share of them; the rest is rank 0's.
        """
        ...

    def flush(self) -> None:
        """Return after what was saved is durable."""
        ...

    def alone(self) -> "CheckpointStore":
        """The same for a training that this rank does without the others: nothing of it is collective."""
        ...


def _never() -> bool:
    return False


def _unheard(report: Report) -> None:
    """Reports are collective, and the other ranks have nothing to say."""


@dataclass(frozen=True)
class Worker:
    """One rank of a job."""

    rank: int
    world_size: int
    device: torch.device
    checkpoints: CheckpointStore
    report: Callable[[Report], None]
    """Collective: every rank calls it the same number of times; only rank 0's report is kept."""
    scratch: Path
    """A private folder that is gone after the job."""
    checkpoint_every: int
    """Steps between checkpoints; moves no bits of the result."""
    threads: int
    """CPU threads for decoding beside torch's own."""
    stopping: Callable[[], bool] = _never
    """Has this process been told to end (SIGTERM, preemption)? Training saves a checkpoint and stops; see parts()."""
    compiled: bool = False
    """Train on torch.compile's kernels. Moves low-order bits, as the number of workers does."""
    micro_batch: int | None = None
    """Most rows of a forward and backward pass, where the loss is one of single rows; None: all of this rank's."""
    shard: bool = False
    """Split weights, gradients and optimizer state over the ranks, where the loss is one of single rows."""
    recompute: bool = False
    """Compute activations again for the gradient in place of keeping them; see components/training/parallel.py."""
    fit_threads: bool = False
    """Train small models on fewer threads than torch has; see components/training/threads.py."""

    def alone(self) -> "Worker":
        """This rank for work that it does without the others, who may have ended; what it reports is not heard."""
        if self.world_size == 1:
            return self
        return replace(self, rank=0, world_size=1, checkpoints=self.checkpoints.alone(), report=_unheard)

    def rows(self, n: int) -> slice:
        """This rank's share of n rows: contiguous, sizes differ by at most one."""
        return slice(n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size)

    def parts(self, items: Iterable[T]) -> Iterator[T]:
        """items, for a stage whose work has parts. Raises: RetryableError between two of them, when told to stop."""
        for i, item in enumerate(items):
            if i > 0 and self.stopping():
                raise RetryableError("told to stop between two parts of the work", fix="run the same command again")
            yield item
