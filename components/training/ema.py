"""Exponential moving average of weights, as a second copy of the module that samples in its place."""

import copy
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from components.config import Config


class EmaConfig(Config):
    """Decay of the averaged weights."""

    decay: float = Field(ge=0, lt=1)
    """Decay per step in the long run."""
    rule: Literal["constant", "ramped"]
    """constant: the decay from the first step on; ramped: min(decay, (1 + n) / (10 + n)) at step n = 1, 2, …"""

    @classmethod
    def tiny(cls) -> Self:
        return cls(decay=0.5, rule="ramped")

    def decay_at(self, n: int) -> float:
        """Decay of update n, counted from 1."""
        return self.decay if self.rule == "constant" else min(self.decay, (1 + n) / (10 + n))


_Tensors = tuple[list[Tensor], list[Tensor]]


def _tensors(module: nn.Module) -> _Tensors:
    """Parameters and buffers."""
    return list(module.parameters()), list(module.buffers())


class Ema(nn.Module):
    """shadow <- decay shadow + (1 - decay) weights. `module` is the averaged copy; buffers are copied, not averaged.

    Its only state is the copy itself: the number of updates is the caller's step.
    """

    def __init__(self, source: nn.Module, config: EmaConfig) -> None:
        super().__init__()
        self.config = config
        self.module = copy.deepcopy(source).requires_grad_(False)
        self._followed: tuple[nn.Module, _Tensors, _Tensors] | None = None

    @torch.no_grad()
    def update(self, source: nn.Module, n: int) -> None:
        """One update after step n (from 1)."""
        if self._followed is None or self._followed[0] is not source:
            self._followed = source, _tensors(self.module), _tensors(source)  # finding them takes longer than averaging
        _, mine, theirs = self._followed
        torch._foreach_lerp_(mine[0], theirs[0], 1.0 - self.config.decay_at(n))
        if mine[1]:
            torch._foreach_copy_(mine[1], theirs[1])

    def copy_to(self, target: nn.Module) -> None:
        """Overwrite target's weights and buffers by the average."""
        target.load_state_dict(self.module.state_dict())

    @torch.no_grad()
    def swap(self, target: nn.Module) -> None:
        """Exchange weights with target; twice is a no-op."""
        for shadow, weight in zip(self.module.parameters(), target.parameters(), strict=True):
            kept = shadow.clone()
            shadow.copy_(weight)
            weight.copy_(kept)
