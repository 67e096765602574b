"""Exponential moving average of weights, as a second copy of the module that samples in its place."""

import copy

import torch
from torch import Tensor, nn

from components.training.config import EmaConfig

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
