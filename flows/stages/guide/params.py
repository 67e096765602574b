"""The section guide of params.yaml."""

from pydantic import Field

from components.config import Config
from components.guides import GuideConfig
from components.training.config import TrainConfig


class GuideParams(Config):
    """A classifier that recognizes classes through noise, and its training."""

    numerics: int
    """Raise it to force a new run."""
    model: GuideConfig
    """The network, and with it which generator it guides: residual_mlp the RDM, unet_encoder the pixel generator."""
    seed: int = Field(ge=0)
    """Seed of the initial weights and of the examination."""
    train: TrainConfig
    """The training run (ADM: AdamW 3e-4, weight decay 0.05, batch 256, 300,000 steps at 128 pixels)."""
