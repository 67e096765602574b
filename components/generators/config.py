"""What every generator's config says. Imports without torch."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from components.config import Config
from components.diffusion.schedule import Prediction, ScheduleConfig


class GeneratorConfig(Config):
    """A generator: its kind, its conditions, its sizes."""

    sampled_by: ClassVar[Literal["diffusion", "masked"]]
    """Kind of the sampling options that it takes."""

    @property
    def conditions(self) -> tuple[Any, ...]:
        """What it is conditioned on."""
        condition = getattr(self, "condition", None)
        return () if condition is None or condition.kind == "none" else (condition,)

    @property
    def can_guide(self) -> bool:
        """Whether training drops a condition, so that there is something to guide away from."""
        return any(condition.drop_prob > 0 for condition in self.conditions)


class ScheduledConfig(GeneratorConfig):
    """A generator by diffusion."""

    sampled_by = "diffusion"
    schedule: ScheduleConfig
    """Forward process (DiT, ADM: linear; LDM, RCG's RDM: sqrt_linear; 1000 times)."""


class DiffusionConfig(ScheduledConfig):
    """What is learned, whatever the network."""

    prediction: Prediction
    """What the network outputs: the noise eps, the velocity v, or the clean target x0."""
    min_snr: float | None = Field(gt=0)
    """Clip of the loss's signal-to-noise weight (min-SNR-gamma; 5 in the paper); null: plain mean squared error."""
    variance: Literal["fixed", "learned"]
    """Reverse variance. learned: the network says where it lies between its bounds, trained on the variational bound
    beside the mean squared error (DiT, ADM); read by the ancestral sampler."""
    latents: Literal["standardized", "as_stored"]
    """Scale of latents. standardized: per channel, by training images; as_stored: as the codec makes them (papers)."""

    def check_side(self, side: int) -> None:
        """Raises: ConfigError for a target of a side that the network cannot take."""
