"""ADM: the pixel-space UNet whose norms are scaled and shifted by time plus condition. Paper: 2105.05233.

In RCG the representation enters through a zero-initialized linear map that is added to the time embedding.
Differs: the papers' unconditional model has no null, and RCG's no dropout of the representation, hence no guidance;
here there is a learned null, and guidance with condition.drop_prob above 0.
"""

from typing import Literal, Self

from components.diffusion.schedule import ScheduleConfig
from components.nn.unet import UNetShape
from components.pixels.base import PixelData
from components.pixels.condition import ConditionConfig
from components.pixels.diffusion import DiffusionGenerator
from components.pixels.unet import UNetConfig, start_unconditional
from components.pixels.unet_network import UNetNetwork


class AdmConfig(UNetConfig):
    """As published at 256 pixels: width 256, multipliers 1 1 2 2 4 4, learned variance; 553 million parameters."""

    kind: Literal["adm"]

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="adm", condition=ConditionConfig.tiny(), width=8, multipliers=(1, 2), n_blocks=1, attention_sides=(4,),
            head_width=4, groups=4, schedule=ScheduleConfig(kind="linear", n_times=1000), prediction="eps",
            min_snr=None, variance="learned", latents="as_stored",
        )  # fmt: skip

    def shape(self, data: PixelData, attention: tuple[int, ...]) -> UNetShape:
        c_in, c_out = self.channels(data)
        return UNetShape(
            c_in=c_in, c_out=c_out, width=self.width, multipliers=self.multipliers, n_blocks=self.n_blocks,
            attention=attention, head_width=self.head_width, groups=self.groups, family="adm", context_dim=0,
        )  # fmt: skip

    def build(self, data: PixelData) -> DiffusionGenerator:
        """Raises: ConfigError for tokens, a target that does not halve evenly, or widths that do not split."""
        shape = self.unet(data)
        network = UNetNetwork(shape)
        generator = DiffusionGenerator(self, data, condition=self.condition, network=network, width=shape.time_dim)
        start_unconditional(generator)
        return generator
