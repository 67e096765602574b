"""How something is trained: steps, optimizer, averaging."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from components.config import Config


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
    schedule: Literal["constant", "cosine", "linear"]
    """Learning rate after the warm-up: constant, or down to zero at the last step by a half cosine or a line."""
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
            steps=4,
            batch_size=4,
            seed=0,
            optimizer=OptimConfig.tiny(),
            warmup_steps=1,
            schedule="constant",
            clip_norm=None,
            precision="fp32",
            log_every=2,
        )


_MOST_LEFT = 0.01
"""Share that the initial weights may have in the average at the end."""


class EmaConfig(Config):
    """Decay of the averaged weights."""

    decay: float = Field(ge=0, lt=1)
    """Decay per step in the long run."""
    rule: Literal["constant", "ramped"]
    """constant: the decay from the first step on; ramped: min(decay, (1 + n) / (10 + n)) at step n = 1, 2, …"""

    @classmethod
    def tiny(cls) -> Self:
        return cls(decay=0.5, rule="ramped")

    def check_start(self, steps: int) -> None:
        """Raises: ValueError, with a decay that fits, when the start weighs more than 1 % after so many steps."""
        left = self.decay**steps if self.rule == "constant" else 0.0
        if left > _MOST_LEFT:
            fits = _MOST_LEFT ** (1 / steps)
            digits = 1 - math.floor(math.log10(1 - fits))
            fits = math.floor(fits * 10**digits) / 10**digits
            raise ValueError(
                f"ema.decay is {self.decay}: after {steps} steps the random initial weights are still {left:.0%} "
                f"of the average; set ema.decay: {fits}, or ema.rule: ramped"
            )

    def decay_at(self, n: int) -> float:
        """Decay of update n, counted from 1."""
        return self.decay if self.rule == "constant" else min(self.decay, (1 + n) / (10 + n))
