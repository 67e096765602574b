"""Optimizers and learning rates: AdamW with its decay groups, and schedules that are pure functions of the step."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim.adamw import adamw

from components.config import Config

Named = Sequence[tuple[str, nn.Parameter]]


class OptimConfig(Config):
    """AdamW. Paper: 1711.05101."""

    kind: Literal["adamw"]
    lr: float = Field(gt=0)
    """Peak learning rate, reached after the warm-up."""
    betas: tuple[float, float]
    """Decay rates of the first and second moment."""
    weight_decay: float = Field(ge=0)
    """Decoupled weight decay, multiplied by the learning rate."""
    decay: Literal["all", "matrices"]
    """What decays: every parameter, or only those of two or more dimensions whose name does not end in bias."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="adamw", lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, decay="matrices")


class TrainConfig(Config):
    """How long, on what batches and with which optimizer a stage trains."""

    steps: int = Field(ge=1)
    """Optimizer steps."""
    batch_size: int = Field(ge=1)
    """Examples per step over all workers together."""
    seed: int = Field(ge=0)
    """Seed of data order and noise; the initial weights are seeded by the stage."""
    optimizer: OptimConfig
    """The optimizer; a model with several optimizers (a GAN) uses it for each."""
    warmup_steps: int = Field(ge=0)
    """Steps over which the learning rate rises linearly from lr / warmup_steps."""
    schedule: Literal["constant", "cosine"]
    """Learning rate after the warm-up: constant, or a half cosine down to zero at the last step."""
    clip_norm: float | None = Field(gt=0)
    """Largest L2 norm of the gradient of one optimizer; null: no clipping."""
    precision: Literal["fp32", "bf16"]
    """Arithmetic of forward and backward on a GPU; a CPU, weights and optimizer state are always fp32."""
    log_every: int = Field(ge=1)
    """Steps between points of the training curve; each point is the mean over its interval."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.warmup_steps >= self.steps and self.warmup_steps > 0:
            raise ValueError(f"warmup_steps is {self.warmup_steps} but steps is {self.steps}; set it below steps")
        return self

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            steps=4, batch_size=4, seed=0, optimizer=OptimConfig.tiny(), warmup_steps=1, schedule="constant",
            clip_norm=None, precision="fp32", log_every=2,
        )  # fmt: skip


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
