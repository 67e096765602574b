"""The one training loop: every stage that fits weights goes through train()."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from components.base import Batch, Metrics
from components.rng import BatchRng
from components.training.optim import TrainConfig
from components.training.worker import Worker

Fetch = Callable[[np.ndarray, BatchRng], Batch]
"""(example indices (b,) int64, rng with b rows) -> batch. Pure: same arguments, same bytes. May run in another thread."""


class Trainable(nn.Module, ABC):
    """What the loop trains. forward() is the only method that DDP sees, so every trained weight must be used in it."""

    @abstractmethod
    def forward(self, batch: Batch, rng: BatchRng, which: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(scalar loss of optimizer `which`, detached scalars to report)."""

    def optimizer_parameters(self) -> list[list[tuple[str, nn.Parameter]]]:
        """Named parameters of each optimizer; one optimizer over all trainable parameters unless overridden."""
        return [[(n, p) for n, p in self.named_parameters() if p.requires_grad]]

    def after_step(self, step: int, n_steps: int) -> None:
        """Called on every rank after the optimizers' step (EMA, momentum encoder)."""
