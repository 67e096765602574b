"""Optimizers and learning rates: AdamW with its decay groups, and schedules that are pure functions of the step."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from components.training.config import OptimConfig, TrainConfig

Named = Sequence[tuple[str, nn.Parameter]]


def lr_at(config: TrainConfig, step: int) -> float:
    """Learning rate of step 0 <= step < steps, without state."""
    lr = config.optimizer.lr
    if step < config.warmup_steps:
        return lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return lr
    done = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    return lr * 0.5 * (1.0 + math.cos(math.pi * done))


def decays(name: str, parameter: Tensor, config: OptimConfig) -> bool:
    """Does weight decay apply to this parameter?"""
    return config.decay == "all" or (parameter.ndim >= 2 and not name.endswith("bias"))


class AdamW:
    """AdamW on fused kernels, fp32 state. The learning rate comes with each step.

    Not torch.optim.AdamW, whose constructor imports torch's compiler: seconds at the start of every stage.
    """

    def __init__(self, named: Named, config: OptimConfig) -> None:
        self.config = config
        self.parameters = [p for _, p in named]
        self._decays = [decays(name, p, config) for name, p in named]
        self._means = [torch.zeros_like(p) for p in self.parameters]
        self._squares = [torch.zeros_like(p) for p in self.parameters]
        self._counts = [torch.zeros((), device=p.device) for p in self.parameters]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update; a parameter without a gradient stays, as do its moments."""
        for decay in (True, False):
            chosen = [i for i, p in enumerate(self.parameters) if self._decays[i] == decay and p.grad is not None]
            if not chosen:
                continue
            adamw(
                [self.parameters[i] for i in chosen],
                [grad for i in chosen if (grad := self.parameters[i].grad) is not None],
                [self._means[i] for i in chosen],
                [self._squares[i] for i in chosen],
                [],
                [self._counts[i] for i in chosen],
                fused=True, amsgrad=False, maximize=False,
                beta1=self.config.betas[0], beta2=self.config.betas[1],
                lr=lr, weight_decay=self.config.weight_decay if decay else 0.0, eps=1e-8,
            )  # fmt: skip

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for p in self.parameters:
            p.grad = None

    def state(self) -> dict[str, list[Tensor]]:
        """What a checkpoint needs."""
        return {"means": self._means, "squares": self._squares, "counts": self._counts}

    @torch.no_grad()
    def load(self, state: Mapping[str, list[Tensor]]) -> None:
        """Continue from state()."""
        for name, own in self.state().items():
            for mine, saved in zip(own, state[name], strict=True):
                mine.copy_(saved)


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float | None) -> Tensor | None:
    """Scale gradients to an L2 norm of at most max_norm; returns the norm before, on its device. No-op for None."""
    if max_norm is None:
        return None
    return nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)
