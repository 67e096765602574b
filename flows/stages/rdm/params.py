"""The section rdm of params.yaml."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from components.cache.config import ReadingChoice
from components.config import Config, added
from components.generators.sampling import DiffusionSampling, Sampling, refuse_sampling
from components.rdm import RdmModelConfig
from components.training.config import EmaConfig, TrainConfig
from components.weights_file import WeightsFile, content_digest, one_start, trained_or_imported


class CheckConfig(Config):
    """How the finished generator is examined. Changes no weights, but the stage reruns."""

    n: int = Field(ge=2)
    """Representations to draw, and held-out ones to compare them with at most."""
    batch_size: int = Field(ge=1)
    """Representations drawn together."""
    sampling: Sampling
    """How they are drawn."""

    @classmethod
    def tiny(cls) -> "CheckConfig":
        return cls(n=16, batch_size=8, sampling=DiffusionSampling.tiny())


class RdmParams(Config):
    """The representation generator and its training."""

    numerics: int
    """Raise it to force a new run."""
    model: RdmModelConfig
    """The network and its forward process."""
    seed: int = Field(ge=0)
    """Seed of the initial weights and of the examination."""
    weights: WeightsFile | None
    """A checkpoint to start from, in the reference's layout or ours; null: random weights, or those of `init`."""
    init: Annotated[str, AfterValidator(content_digest)] | None
    """Start from a finished rdm run: `sha256:` and its content digest. `rcg retrain` writes it; null: do not."""
    train: TrainConfig | None
    """The training run (paper: AdamW 5.12e-4 constant, batch 512, weight decay 0.01 on everything, 200 epochs); null:
    none, the weights are imported as they are."""
    reading: ReadingChoice = added()
    """How its rows are read; null: a cache of more than 16 GB by windows, a smaller one whole."""
    ema: EmaConfig | None
    """Averaging of the weights that are kept (paper: ramped to 0.9999); null: the last weights."""
    earlier: float | None = added(gt=0, lt=1)
    """Share of the training (0..1) after which its weights are also kept as they are then, in a second file, for
    autoguidance; null: not."""
    check: CheckConfig
    """How the result is examined."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        trained_or_imported("rdm", self.train, self.weights)
        one_start("rdm", self.weights, self.init)
        if self.earlier is not None and self.train is None:
            raise ValueError("earlier keeps weights of a training, and train is null; set earlier: null")
        if self.train and self.ema and not (self.weights or self.init):
            self.ema.check_start(self.train.steps)
        refuse_sampling("rdm.check.sampling", self.check.sampling, self.model)
        return self
