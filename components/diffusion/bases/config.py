"""Configs of base distributions. Imports without torch.

c: component, one of k Gaussians; y: condition.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from components.config import Config


class NormalConfig(Config):
    """N(0, I)."""

    kind: Literal["normal"]

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="normal")


class FrequenciesConfig(Config):
    """Without a condition: c by its frequency in training."""

    by: Literal["frequencies"]

    @classmethod
    def tiny(cls) -> Self:
        return cls(by="frequencies")


class ByClassConfig(Config):
    """c by its frequency among the training rows of the class."""

    by: Literal["class"]

    @classmethod
    def tiny(cls) -> Self:
        return cls(by="class")


class NearestConfig(Config):
    """The c whose mean has the largest cosine to a vector of the representations' own space, as CLIP's text tower makes
    it: in training, too (Corgi)."""

    by: Literal["nearest"]
    field: str = Field(min_length=1)
    """The vector; one of the conditions."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(by="nearest", field="text")


class PredictedConfig(Config):
    """c by a softmax layer on a vector of any space, trained beside the network on the c of the representation."""

    by: Literal["predicted"]
    field: str = Field(min_length=1)
    """The vector; one of the conditions."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(by="predicted", field="text")


ChoiceConfig = Annotated[FrequenciesConfig | ByClassConfig | NearestConfig | PredictedConfig, Field(discriminator="by")]


class GaussiansConfig(Config):
    """k Gaussians, fitted to the training rows by k-means: shifted diffusion. Paper: 2211.15388 (Corgi)."""

    kind: Literal["gaussians"]
    k: int = Field(ge=1, le=65_536)
    """Number of Gaussians; at most the training rows (paper: 1024). 1: standardized representations, as in unCLIP."""
    kappa: float = Field(gt=0)
    """Factor on their standard deviations (Corgi's code: 5); 1: those of the data."""
    learnable: bool
    """Train means and deviations on: towards their rows, away from each other. The denoiser does not move them."""
    index: bool
    """Tell the network which of them a row belongs to."""
    choice: ChoiceConfig
    """How sampling chooses one of them, once for each row."""

    @property
    def field(self) -> str | None:
        """Field that the choice reads."""
        return "class" if self.choice.by == "class" else getattr(self.choice, "field", None)

    @classmethod
    def tiny(cls) -> Self:
        choice = FrequenciesConfig.tiny()
        return cls(kind="gaussians", k=4, kappa=1.0, learnable=False, index=True, choice=choice)


class ConditionalConfig(Config):
    """A Gaussian for each row, around the mean that a condition leads one to expect. Paper: 2502.09611 (CPD-FM)."""

    kind: Literal["conditional"]
    field: str = Field(min_length=1)
    """The vector that it is read off, by a ridge regression on the training rows; one of the conditions."""
    kappa: float = Field(gt=0)
    """Factor on the standard deviations; 1: what the condition leaves open."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="conditional", field="text", kappa=1.0)


BaseConfig = Annotated[NormalConfig | GaussiansConfig | ConditionalConfig, Field(discriminator="kind")]
NORMAL = NormalConfig(kind="normal")


def is_normal(base: Any) -> bool:
    """Whether params and files say nothing of the base, as before there were others."""
    return isinstance(base, NormalConfig)
