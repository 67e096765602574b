"""LDM: a UNet over latents whose transformers see the condition as a context of length one. Paper: 2112.10752.

In RCG the representation itself is that context. Differs: the published models have no dropout of the condition, hence
no guidance; here there is a learned null, and guidance with condition.drop_prob above 0.
"""

from dataclasses import replace
from typing import Literal, Self

from pydantic import Field

from components.diffusion.schedule import ScheduleConfig
from components.pixels.base import PixelData
from components.pixels.condition import ConditionConfig
from components.pixels.diffusion import DiffusionGenerator
from components.pixels.unet import HeadWidth, UNetConfig
from components.pixels.unet_network import UNetNetwork


class LdmConfig(UNetConfig):
    """As published (LDM-8): width 256, multipliers 1 2 4, attention on every level."""

    family = "ldm"

    kind: Literal["ldm"]
    context_dim: int = Field(ge=1)
    """Width of the table of classes or clusters (512); a representation is the context as it is."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="ldm",
            condition=ConditionConfig.tiny(),
            width=8,
            multipliers=(1, 2),
            n_blocks=1,
            attention_sides=(4,),
            heads=HeadWidth(width=4),
            groups=4,
            context_dim=5,
            schedule=ScheduleConfig.tiny(),
            prediction="eps",
            min_snr=None,
            variance="fixed",
            latents="as_stored",
        )

    def build(self, data: PixelData) -> DiffusionGenerator:
        """Raises: ConfigError for tokens, a target that does not halve evenly, or widths that do not split."""
        width = self._context_dim(data)
        network = UNetNetwork(replace(self.unet(data), context_dim=width))
        return DiffusionGenerator(self, data, condition=self.condition, network=network, width=width, project=False)

    def _context_dim(self, data: PixelData) -> int:
        return data.dim if self.condition.kind == "representation" else self.context_dim
