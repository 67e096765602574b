"""What every component shares: its config base, the batch it reads, and the abstract Generator."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from components.rng import BatchRng

Batch = Mapping[str, Tensor]
"""Named rows: target, representation (b, dim), class (b,) int64. Every tensor has the same first dimension."""

Metrics = dict[str, float]


class Config(BaseModel):
    """Base of every config: immutable, no unknown keys, field docstrings become the schema's descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Reader(Protocol):
    """What components need of an artifact that they read."""

    def path(self, name: str) -> Path: ...
    def read_json(self, name: str) -> Any: ...


class Writer(Protocol):
    """What components need of an artifact that they write."""

    def file(self, name: str) -> AbstractContextManager[Path]: ...
    def write_json(self, name: str, value: Any) -> None: ...


class TargetSpec(Config):
    """The space that a pixel generator works in: what the codec makes of an image, as the cache stores it."""

    space: Literal["pixels", "latents", "tokens"]
    shape: tuple[int, ...]
    """Shape of one target without the batch: (c, h, w) for pixels and latents, (h, w) for tokens."""
    dtype: Literal["uint8", "float16", "float32", "int32"]
    """Stored dtype: pixels uint8 (0..255), latents float, tokens int32."""
    n_codes: int | None
    """Size of the codebook; None unless the space is tokens."""
    image_px: int
    """Side of the square image that a target decodes to."""

    def as_float(self, target: Tensor) -> Tensor:
        """Stored pixels to [-1, 1]; latents to float32. Shapes: (b, *shape) -> (b, *shape)."""
        if self.space == "pixels":
            return target.to(torch.float32) / 127.5 - 1.0
        return target.to(torch.float32)


class Generator(nn.Module, ABC):
    """p(target | conditions): the representation generator and every pixel generator.

    Its target is a representation (RDM) or what the codec makes of an image (pixels, latents, tokens).
    """

    conditions: tuple[str, ...]
    """Fields of the batch that loss() and sample() read besides the target."""
    makes: Literal["representation", "target"]
    """Field that sample() makes; a condition of the generators after it."""

    @property
    def required(self) -> tuple[str, ...]:
        """Fields without which sample() is refused; it samples the others by their training frequencies."""
        return ()

    @property
    def class_frequencies(self) -> Float[Tensor, " classes"] | None:
        """Share of each class among the training rows; None for a generator without a class condition."""
        return None

    def forward(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        return self.loss(batch, rng)  # DDP synchronizes gradients through forward only

    @abstractmethod
    def loss(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        """One number per example, never reduced; the training loop takes the mean."""
