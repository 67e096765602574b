"""The section encoder of params.yaml."""

from typing import Self

from pydantic import Field, model_validator

from components.config import Config
from components.encoders.config import ContrastiveConfig, EncoderConfig, MoCoV3Config
from components.training.config import TrainConfig


class ProbeConfig(Config):
    """How the finished encoder is examined. Changes no weights, but the stage reruns."""

    batch_size: int = Field(ge=1)
    """Images per forward pass."""
    max_images: int = Field(ge=2)
    """Images of each split that are encoded, evenly spaced."""
    k_neighbors: int = Field(ge=1)
    """Neighbors that vote, for representations and for raw pixels alike."""
    weight_decay: float = Field(ge=0)
    """Of the linear probe: coefficient of its squared weights."""
    iterations: int = Field(ge=1)
    """L-BFGS iterations of the linear probe."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(batch_size=16, max_images=64, k_neighbors=3, weight_decay=1e-3, iterations=20)


class EncoderParams(Config):
    """The encoder: what it is, and how it is trained or where its weights are."""

    numerics: int
    """Raise it to force a new run."""
    model: EncoderConfig
    """The network and its image statistics."""
    px: int = Field(ge=1)
    """Side at which pictures are read: shorter side resized, center crop."""
    seed: int = Field(ge=0)
    """Seed of the initial weights."""
    train: TrainConfig | None
    """The training run; null to import model.weights."""
    contrastive: ContrastiveConfig | None
    """The training method; null to import model.weights."""
    probe: ProbeConfig
    """How the result is examined."""

    @model_validator(mode="after")
    def _trained_or_imported(self) -> Self:
        trains = self.train is not None
        if trains != (self.contrastive is not None):
            raise ValueError("set encoder.train and encoder.contrastive together, or both to null")
        if trains and not isinstance(self.model, MoCoV3Config):
            raise ValueError(f"a {self.model.kind} encoder cannot be trained here; set train and contrastive to null")
        if trains == (self.model.weights is not None):
            raise ValueError(
                "an encoder is either trained or imported: set encoder.model.weights to null, "
                "or encoder.train and encoder.contrastive to null and name a weights file"
            )
        if self.model.reduce is not None and self.model.reduce.dim > self.model.dim:
            raise ValueError(
                f"encoder.model.reduce.dim is {self.model.reduce.dim}, more than the {self.model.dim} of the network"
            )
        return self
