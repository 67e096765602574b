"""The section upsampler of params.yaml."""

from typing import Self

from pydantic import Field, model_validator

from components.config import Config, added
from components.errors import ConfigError
from components.generators.sampling import Sampling, refuse_sampling
from components.pixels import PixelConfig
from components.pixels.base import PixelDiffusionConfig
from components.training.config import EmaConfig, TrainConfig
from components.weights_file import WeightsFile, trained_or_imported


class UpsamplerParams(Config):
    """A second generator, which makes large images of the pixel generator's."""

    numerics: int
    """Raise it to force a new run."""
    px: int = Field(ge=2)
    """Side of the large images, a multiple of codec.model.px."""
    model: PixelConfig
    """A diffusion generator over pixels with a condition of kind low_res; class, text_transformer and masked_image may
    stand beside it."""
    seed: int = Field(ge=0)
    """Seed of the initial weights and of the pictures that are drawn."""
    weights: WeightsFile | None = added()
    """A checkpoint to start from, one of ADM-U or ours; null: random weights."""
    train: TrainConfig | None
    """The training run, on all pictures of the split train; null: none, the weights are imported as they are."""
    ema: EmaConfig | None
    """Averaging of the weights that are kept; null: the last weights."""
    sampling: Sampling
    """How it is sampled, here and in bundles."""
    noise: float = Field(ge=0, le=1)
    """Level of the noise that is added to the small image in sampling, at most the condition's; 0 for none."""
    n_val: int = Field(ge=1)
    """Held-out pictures that it is measured on."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        low_res, kinds = self.model.condition("low_res"), {c.kind for c in self.model.conditions}
        if low_res is None or not isinstance(self.model, PixelDiffusionConfig):
            told = "conditions: [{kind: low_res, port: spatial, drop_prob: 0.0, noise: 0.3}]"
            raise ValueError(f"upsampler.model has to be a diffusion generator that sees the small image; write {told}")
        if more := kinds - {"low_res", "class", "text_transformer", "masked_image"}:
            raise ValueError(f"upsampler.model cannot be conditioned on {', '.join(sorted(more))}; leave it out")
        if self.noise > low_res.noise:
            raise ValueError(f"upsampler.noise is {self.noise}, but training adds {low_res.noise} at most; lower it")
        try:
            self.model.check_side(self.px)
        except ConfigError as error:
            raise ValueError(
                f"upsampler.px and model do not fit: {error.what} (got {error.got}); {error.fix}"
            ) from error
        trained_or_imported("upsampler", self.train, self.weights)
        if self.train and self.ema and not self.weights:
            self.ema.check_start(self.train.steps)
        refuse_sampling("upsampler.sampling", self.sampling, self.model)
        return self
