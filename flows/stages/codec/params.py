"""The section codec of params.yaml."""

from typing import Self

from pydantic import Field, model_validator

from components.codecs.config import CodecConfig, VqganConfig, VqganObjective
from components.config import Config
from components.training.config import TrainConfig
from components.weights_file import WeightsFile, trained_or_imported


class CodecParams(Config):
    """What pictures are encoded to, and how the codec is fitted."""

    numerics: int
    """Raise it to force a new run."""
    model: CodecConfig
    """The codec."""
    seed: int = Field(ge=0)
    """Seed of the initial weights."""
    weights: WeightsFile | None
    """A checkpoint to start from, in the reference's layout or ours; null: random weights, or none at all."""
    train: TrainConfig | None
    """The training run, for vqgan alone; null: none, the weights are imported as they are."""
    objective: VqganObjective | None
    """What vqgan is fitted for; null without a training run."""

    @model_validator(mode="after")
    def _trains_what_has_weights(self) -> Self:
        kind, trainable, names = self.model.kind, isinstance(self.model, VqganConfig), ("train", "objective")
        for name in names:
            if getattr(self, name) is not None and not trainable:
                raise ValueError(f"codec.{name} is wrong: a {kind} codec is not trained here; set it to null")
        if (self.train is None) != (self.objective is None):
            name = names[self.train is not None]
            raise ValueError(f"codec.{name} is wrong: a {kind} codec needs codec.train and codec.objective, or neither")
        if kind == "none" and self.weights is not None:
            raise ValueError("codec.weights is wrong: a none codec has no weights; set it to null")
        if kind != "none":
            trained_or_imported("codec", self.train, self.weights)
        return self
