"""What the training loop is given: a Trainable, where its batches come from, and pictures to draw on the way."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from components.base import Batch
from components.rng import BatchRng

Fetch = Callable[[np.ndarray, BatchRng], Batch]
"""(example indices (b,) int64, rng with b rows) -> batch. Pure: same arguments, same bytes. Runs in another thread."""


class Trainable(nn.Module, ABC):
    """What the loop trains. forward() is the only method that DDP sees, so every trained weight must be used in it."""

    by_row: bool = False
    """Whether the loss is the mean of one loss per row, none of which depends on the other rows or keeps statistics."""
    in_parts: ClassVar[bool] = False
    """Whether a loss that needs its rows together heeds rows_at_once."""
    rows_at_once: int | None = None
    """Most rows to take at once through what treats each by itself, see components/nn/parts.py; None: all of them."""

    @abstractmethod
    def forward(self, batch: Batch, rng: BatchRng, which: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(scalar loss of optimizer `which`, detached scalars to report), each a mean over this rank's rows.

        Only the parameters of optimizer `which` require gradients during the call.
        """

    def optimizer_parameters(self) -> list[list[tuple[str, nn.Parameter]]]:
        """Named parameters of each optimizer; one optimizer over all trainable parameters unless overridden."""
        return [[(n, p) for n, p in self.named_parameters() if p.requires_grad]]

    def after_step(self, step: int, n_steps: int) -> None:
        """Called on every rank after the optimizers' step number `step` = 1 … n_steps (EMA, momentum encoder)."""


@dataclass(frozen=True)
class Preview:
    """Pictures to look at during training: draw(step) -> {name: (h, w, 3) uint8} on rank 0, every `every` steps.

    Drawn without gradients, in eval mode, and with its own Rng, so that training keeps its bits.
    """

    every: int
    draw: Callable[[int], Mapping[str, np.ndarray]]
