"""What every generator is: p(what is made given conditions), fitted, trained by a loss, and sampled."""

from abc import ABC, abstractmethod
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from components.base import Batch
from components.conditions.container import Conditions
from components.errors import ShapeError
from components.generators.config import GeneratorConfig, GeneratorData
from components.generators.sampling import AnySampling
from components.rng import BatchRng, Rng
from components.target import EventSpec


class TrainingRows(Protocol):
    """The training rows of a cache, read by field and in parts: targets may not fit into memory."""

    def __len__(self) -> int: ...

    def field(self, name: str, indices: np.ndarray) -> Tensor:
        """Shapes: (n,) -> (n, ...)."""
        ...


class Generator(nn.Module, ABC):
    """The RDM, whose samples are representations, and every pixel generator, whose samples are targets of a codec.

    What depends on the kinds of its conditions stays inside; others ask for fields, never for kinds.
    """

    def __init__(self, config: GeneratorConfig, data: GeneratorData, *, spec: EventSpec) -> None:
        super().__init__()
        self.config, self.data, self.spec = config, data, spec

    conditioner: Conditions

    @property
    def makes(self) -> Literal["representation", "target"]:
        """Field that sample() makes; a condition of the generators after it."""
        return "representation" if self.spec.space == "representations" else "target"

    @property
    def conditions(self) -> tuple[str, ...]:
        """Fields of the batch that loss() and sample() read besides the one that it makes."""
        return self.conditioner.fields

    @property
    def required(self) -> tuple[str, ...]:
        """Fields without which sample() is refused; others are sampled by their training frequencies, or are null."""
        return self.conditioner.required

    @property
    def given(self) -> tuple[str, ...]:
        """Fields that an examination gives sample() of real images; others it samples by their training frequencies."""
        return tuple(dict.fromkeys(c.field for c in self.config.conditions if not c.sampled))

    @property
    def skips(self) -> tuple[str, ...]:
        """Fields without which a training row is left out."""
        return tuple(c.field for c in self.config.conditions if getattr(c, "missing", "null") == "skip")

    @property
    def class_frequencies(self) -> Float[Tensor, " classes"] | None:
        """Share of each class among the training rows; None for a generator without a class condition."""
        return self.conditioner.class_frequencies

    def fit(self, rows: TrainingRows, seed: int, *, trained: bool = False) -> None:
        """Read off the training rows, before training, all that no gradient learns. Equal on every rank.

        `trained`: the weights come from a finished run; what they mean nothing without (scale, clusters) stays.
        Raises: ConfigError when the rows do not suffice.
        """
        index = np.arange(len(rows))
        self.conditioner.fit({name: rows.field(name, index) for name in self.conditioner.fitted}, seed, trained=trained)

    def forward(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        return self.loss(batch, rng)  # DDP synchronizes gradients through forward only

    @abstractmethod
    def loss(self, batch: Batch, rng: BatchRng) -> Float[Tensor, " b"]:
        """One number per example, never reduced; the training loop takes the mean."""

    @abstractmethod
    def sample(self, batch: Batch, sampling: AnySampling, rng: Rng) -> Tensor:
        """rng.rows of what it makes, in the stored dtype. `batch` holds fields of `conditions`, or only the required.

        Shapes: (rows, *spec.shape). Raises: ConfigError for options that it cannot honor, or a required field that is
        absent.
        """

    def checked(self, batch: Batch) -> Tensor:
        """What the batch has of the field that it makes. Raises: ShapeError."""
        rows = batch[self.makes]
        if tuple(rows.shape[1:]) != self.spec.shape:
            got, expected = tuple(rows.shape[1:]), self.spec.shape
            raise ShapeError(f"{self.makes} of the wrong shape", got=got, expected=expected)
        return rows
