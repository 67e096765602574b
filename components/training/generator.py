"""The adapter that makes any generator trainable: mean of its per-example loss, and EMA after each step."""

import copy
from collections.abc import Mapping
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from components.base import Batch
from components.rng import BatchRng
from components.training.config import EmaConfig
from components.training.ema import Ema
from components.training.trainable import Trainable

G = TypeVar("G", bound=nn.Module)


class GeneratorTrainable(Trainable, Generic[G]):
    """A generator and, if configured, its averaged copy. `result` is what sampling uses and what is saved.

    `earlier`: share of the training after which the result is kept as it is then (2406.02507); None: it is not.
    """

    by_row = True

    def __init__(self, generator: G, ema: EmaConfig | None, earlier: float | None = None) -> None:
        super().__init__()
        self.generator = generator
        self.ema = Ema(generator, ema) if ema is not None else None
        self.share, self.earlier = earlier, None
        if earlier is not None:
            self.earlier = copy.deepcopy(generator).requires_grad_(False)

    @property
    def result(self) -> G:
        """The averaged generator, or the trained one when there is no EMA."""
        return self.generator if self.ema is None else cast(G, self.ema.module)

    def forward(self, batch: Batch, rng: BatchRng, which: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:
        if which:
            raise IndexError(f"a generator has one optimizer, not {which + 1}")
        return self.generator(batch, rng).mean(), {}

    def after_step(self, step: int, n_steps: int) -> None:
        if self.ema is not None:
            self.ema.update(self.generator, step)
        if self.share is not None and self.earlier is not None and step == max(1, round(self.share * n_steps)):
            self._keep(self.earlier)

    @torch.no_grad()
    def _keep(self, earlier: nn.Module) -> None:
        kept, now = earlier.state_dict(), self.result.state_dict()
        for name, tensor in kept.items():
            tensor.copy_(now[name])
