"""The section pixels of params.yaml."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from components.cache.config import ReadingChoice
from components.config import Config, added
from components.generators.sampling import Sampling, refuse_sampling
from components.pixels import PixelConfig
from components.training.config import EmaConfig, TrainConfig
from components.weights_file import WeightsFile, content_digest, one_start, trained_or_imported


class PreviewConfig(Config):
    """Pictures drawn during training, of held-out conditions. Changes no weights, but the stage reruns."""

    every: int = Field(ge=1)
    """Steps between previews; one more is drawn at the end."""
    n: int = Field(ge=1)
    """Images per preview."""
    sampling: Sampling
    """How they are drawn."""


class PixelsParams(Config):
    """The pixel generator and its training."""

    numerics: int
    """Raise it to force a new run."""
    model: PixelConfig
    """The generator and its condition."""
    seed: int = Field(ge=0)
    """Seed of the initial weights, of the clusters and of previews."""
    weights: WeightsFile | None
    """A checkpoint to start from, in the reference's layout or ours; null: random weights, or those of `init`."""
    init: Annotated[str, AfterValidator(content_digest)] | None
    """Start from a finished pixels run: `sha256:` and its content digest. `rcg retrain` writes it; null: do not."""
    train: TrainConfig | None
    """The training run; null: none, the weights are imported as they are."""
    reading: ReadingChoice = added()
    """How its rows are read; null: a cache of more than 16 GB by windows, a smaller one whole."""
    ema: EmaConfig | None
    """Averaging of the weights that are kept; null: the last weights."""
    earlier: float | None = added(gt=0, lt=1)
    """Share of the training (0..1) after which its weights are also kept as they are then, in a second file, for
    autoguidance; null: not."""
    preview: PreviewConfig
    """Pictures on the way."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        trained_or_imported("pixels", self.train, self.weights)
        one_start("pixels", self.weights, self.init)
        if self.earlier is not None and self.train is None:
            raise ValueError("earlier keeps weights of a training, and train is null; set earlier: null")
        if self.train and self.ema and not (self.weights or self.init):
            self.ema.check_start(self.train.steps)
        refuse_sampling("pixels.preview.sampling", self.preview.sampling, self.model)
        return self
