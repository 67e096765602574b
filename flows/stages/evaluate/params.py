"""The section evaluate of params.yaml."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.config import Config
from components.metrics.config import Features
from components.training.config import TrainConfig


class EvaluateParams(Config):
    """How the samples are judged. Metrics are comparable only between runs with equal values here."""

    numerics: int
    """Raise it to force a new run."""
    split: Literal["val", "test"]
    """Held-out images to compare with: val while choosing options, test for the numbers that are reported."""
    seed: int = Field(ge=0)
    """Seed of the feature network's initial weights, of the bootstrap and of the images shown."""
    features: Features
    """The feature network: trained here, or better, ready-made from a file."""
    train: TrainConfig | None
    """How the feature network is trained; null for one from a file."""
    batch_size: int = Field(ge=1)
    """Images per forward pass while extracting features."""
    k_neighbors: int = Field(ge=1)
    """k of precision and recall (paper: 3)."""
    n_bootstrap: int = Field(ge=2)
    """Resamples behind the interval of the Frechet distance."""
    percentile: float = Field(gt=0, lt=100)
    """A sample is suspiciously close when it is nearer to a training image than this percent of held-out images are."""

    @model_validator(mode="after")
    def _trained_or_ready(self) -> Self:
        if (self.train is None) != (self.features.kind == "ready"):
            raise ValueError(
                "evaluate.features is a network from a file, which is not trained; set evaluate.train: null"
                if self.features.kind == "ready"
                else "evaluate.features is trained, but evaluate.train is null; presets/ show the section"
            )
        return self
