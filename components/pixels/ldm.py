"""LDM: a UNet over latents whose transformers see the condition as a context of length one. Paper: 2112.10752.

In RCG the representation itself is that context. Differs: the published models have no dropout of the condition, hence
no guidance; here there is a learned null, and guidance with drop_prob above 0.
Imports without torch: build() imports the network.
"""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from components.conditions.config import RepresentationConfig
from components.diffusion.schedule import ScheduleConfig
from components.generators.config import GeneratorData
from components.pixels.unet import HeadWidth, UNetConfig

if TYPE_CHECKING:
    from components.generators.diffusion import Diffusion


class LdmConfig(UNetConfig):
    """As published (LDM-8): width 256, multipliers 1 2 4, attention on every level."""

    family = "ldm"

    kind: Literal["ldm"]
    context_dim: int = Field(ge=1)
    """Width of the context, to which every condition is mapped (classes: 512); for a
    representation that is not projected, its dimension."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="ldm",
            conditions=(RepresentationConfig.tiny(),),
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

    def build(self, data: GeneratorData) -> "Diffusion":
        from components.pixels.unet_network import UNetNetwork

        shape, attends = self.unet(data, context_dim=self.context_dim), self.uses("sequence")
        width = self.context_dim if attends else None
        network = UNetNetwork(shape, sequence_width=width, c_extra=self.extra_channels(data))
        return self.generator(data, network, constant=not attends)
