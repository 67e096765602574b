"""ADM: the pixel-space UNet whose norms are scaled and shifted by time plus condition. Paper: 2105.05233.

In RCG the representation enters through a zero-initialized linear map that is added to the time embedding.
Differs: the papers' unconditional model has no null, and RCG's no dropout of the representation, hence no guidance;
here there is a learned null, and guidance with drop_prob above 0.
Imports without torch: build() imports the network.
"""

from typing import TYPE_CHECKING, Literal, Self

from components.conditions.config import RepresentationConfig
from components.config import added
from components.diffusion.schedule import ScheduleConfig
from components.generators.config import GeneratorData
from components.pixels.unet import HeadWidth, UNetConfig

if TYPE_CHECKING:
    from components.generators.diffusion import Diffusion


class AdmConfig(UNetConfig):
    """As published at 256 pixels: width 256, multipliers 1 1 2 2 4 4, learned variance; 553 million parameters."""

    family = "adm"

    kind: Literal["adm"]
    qkv_order: Literal["per_head", "stacked"]
    """Order of the rows of attention's qkv matrices: per_head, or stacked (ADM-64's file). It matters for imported
    weights alone, which load without an error in either order."""
    sequence_dim: int | None = added(ge=1)
    """Width of the rows of a sequence that attention sees (GLIDE: 512); null: four times `width`."""

    drop_prob: float | None = added(ge=0, lt=1)
    """Dropout inside residual blocks, before their second convolution (ADM-64, GLIDE: 0.1); null: none."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="adm",
            conditions=(RepresentationConfig.tiny(),),
            width=8,
            multipliers=(1, 2),
            n_blocks=1,
            attention_sides=(4,),
            heads=HeadWidth(width=4),
            qkv_order="per_head",
            groups=4,
            schedule=ScheduleConfig(kind="linear", n_times=1000),
            prediction="eps",
            min_snr=None,
            variance="learned",
            latents="as_stored",
        )

    def build(self, data: GeneratorData) -> "Diffusion":
        from components.pixels.unet_network import UNetNetwork, start_unconditional

        shape = self.unet(data, qkv_order=self.qkv_order)
        width = (self.sequence_dim or shape.time_dim) if self.uses("sequence") else None
        network = UNetNetwork(
            shape, sequence_width=width, c_extra=self.extra_channels(data), drop_prob=self.drop_prob or 0.0
        )
        generator = self.generator(data, network)
        start_unconditional(generator.conditioner)
        return generator
