"""The section guide of params.yaml."""

from typing import Self

from pydantic import Field, model_validator

from components.cache.config import ReadingChoice
from components.config import Config, added
from components.guides import GuideConfig
from components.training.config import TrainConfig
from components.weights_file import WeightsFile, trained_or_imported


class GuideParams(Config):
    """A classifier that recognizes classes through noise, and its training."""

    numerics: int
    """Raise it to force a new run."""
    model: GuideConfig
    """The network, and with it which generator it guides: residual_mlp the RDM, unet_encoder and vit the pixel
    generator."""
    seed: int = Field(ge=0)
    """Seed of the initial weights and of the examination."""
    weights: WeightsFile | None = added()
    """A checkpoint to start from, one of ADM's classifiers, GLIDE's image tower or ours; null: random weights."""
    train: TrainConfig | None
    """The training run (ADM: AdamW 3e-4, weight decay 0.05, batch 256, 300,000 steps at 128 pixels); null: none, the
    weights are imported as they are."""
    reading: ReadingChoice = added()
    """How its rows are read; null: a cache of more than 16 GB by windows, a smaller one whole."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        trained_or_imported("guide", self.train, self.weights)
        return self
