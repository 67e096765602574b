"""What every component shares: the batch it reads, its artifacts, and the abstract Generator."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from components.rng import BatchRng, Rng

Batch = Mapping[str, Tensor]
"""Named rows: target, representation (b, dim), class (b,) int64. Every tensor has the same first dimension."""

Metrics = dict[str, float]


class Reader(Protocol):
    """What components need of an artifact that they read."""

    def path(self, name: str) -> Path: ...
    def read_json(self, name: str) -> Any: ...


class Writer(Protocol):
    """What components need of an artifact that they write."""

    def file(self, name: str) -> AbstractContextManager[Path]: ...
    def write_json(self, name: str, value: Any) -> None: ...


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
    def sample(self, batch: Batch, how: Any, rng: Rng) -> Tensor:
        """rng.rows targets. `batch` holds fields of `conditions`, at least the required ones."""

    @abstractmethod
    def loss(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        """One number per example, never reduced; the training loop takes the mean."""
