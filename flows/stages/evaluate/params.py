"""The section evaluate of params.yaml."""

from typing import Literal

from pydantic import Field

from components.config import Config
from components.metrics.config import FeatureConfig
from components.training.config import TrainConfig


class EvaluateParams(Config):
    """How the samples are judged. Metrics are comparable only between runs with equal values here."""

    numerics: int
    """Raise it to force a new run."""
    split: Literal["val", "test"]
    """Held-out images to compare with: val while choosing options, test for the numbers that are reported."""
    seed: int = Field(ge=0)
    """Seed of the feature network's initial weights, of the bootstrap and of the images shown."""
    features: FeatureConfig
    """The feature network."""
    train: TrainConfig
    """How the feature network is trained."""
    batch_size: int = Field(ge=1)
    """Images per forward pass while extracting features."""
    k_neighbors: int = Field(ge=1)
    """k of precision and recall (paper: 3)."""
    n_bootstrap: int = Field(ge=2)
    """Resamples behind the interval of the Frechet distance."""
    percentile: float = Field(gt=0, lt=100)
    """A sample is suspiciously close when it is nearer to a training image than this percent of held-out images are."""
