"""What every pixel generator is: loss and sample over a target space, told apart by how it is conditioned."""

from abc import abstractmethod
from typing import Protocol

from torch import Tensor

from components.base import Batch, Generator
from components.config import Config
from components.generators.config import GeneratorConfig
from components.generators.sampling import AnySampling
from components.pixels.condition import Conditioner
from components.rng import Rng
from components.target import TargetSpec


class PixelData(Config):
    """Facts of the encode cache that a pixel generator is built for; they travel in its config.json."""

    target: TargetSpec
    """The space that the codec encodes images to."""
    dim: int
    """Dimension of the representations."""
    classes: tuple[str, ...] | None
    """Names of the classes in index order; None without labels."""


class PixelGenerator(Generator):
    """p(target | condition). `conditioner` owns everything that depends on the kind of condition."""

    config: GeneratorConfig
    data: PixelData
    conditioner: Conditioner
    makes = "target"

    @property
    def required(self) -> tuple[str, ...]:
        return self.conditioner.required

    @property
    def class_frequencies(self) -> Tensor | None:
        return self.conditioner.frequencies if self.conditions == ("class",) else None

    def fit_conditions(self, batch: Batch, seed: int) -> None:
        """Fit centroids and frequencies on all training rows (representation, class), once, before training."""
        self.conditioner.fit(batch, seed)

    def fit_target(self, target: Tensor) -> None:
        """Fit what depends on the scale of the targets on these training rows, once, before training."""

    @abstractmethod
    def sample(self, batch: Batch, how: AnySampling, rng: Rng) -> Tensor:
        """rng.rows targets in the stored dtype. `batch` holds keys of `conditions`, or less where they can be drawn.

        Shapes: (rows, *data.target.shape). Raises: ConfigError when a condition is needed and absent.
        """


class PixelModel(Protocol):
    """A config of the union: it builds its generator for the data at hand."""

    def build(self, data: PixelData) -> PixelGenerator:
        """Raises: ConfigError when the target space or the condition does not suit, naming the fix."""
        ...
