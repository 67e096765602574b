"""Hybrid: diffusion by a small transformer between a convolutional stem and head, for small budgets.

A DiT that was trained for minutes shows its patches; here convolutions at full resolution paint across their borders.
Paper: 2301.11093 (U-ViT), with the blocks of 2212.09748 (DiT).
Imports without torch: build() imports the network.
"""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from components.conditions.config import RepresentationConfig
from components.config import check_divides
from components.diffusion.schedule import ScheduleConfig
from components.errors import ConfigError
from components.generators.config import GeneratorData
from components.pixels.base import PixelDiffusionConfig

if TYPE_CHECKING:
    from components.generators.diffusion import Diffusion


class HybridConfig(PixelDiffusionConfig):
    """Transformer between convolutions, on pixels or latents; trained shortly, it does best with prediction x0."""

    ports = ("vector", "sequence", "spatial")
    kind: Literal["hybrid"]
    width: int = Field(ge=4, multiple_of=4)
    """Width of the tokens."""
    depth: int = Field(ge=1)
    """Number of transformer blocks."""
    heads: int = Field(ge=1)
    """Attention heads; must divide width."""
    mlp_ratio: float = Field(gt=0)
    """Hidden width of a block's MLP over width."""
    stride: Literal[2, 4, 8, 16]
    """Side of what one token stands for, in target elements (4); must divide the target's side."""
    channels: int = Field(ge=8, multiple_of=8)
    """Channels of the convolutions at full resolution; twice as many at each halving."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        check_divides("heads", self.heads, "width", self.width)
        return self

    @classmethod
    def tiny(cls) -> "HybridConfig":
        return cls(
            kind="hybrid",
            conditions=(RepresentationConfig.tiny(),),
            width=16,
            depth=1,
            heads=2,
            mlp_ratio=2.0,
            stride=4,
            channels=8,
            schedule=ScheduleConfig.tiny(),
            prediction="v",
            min_snr=None,
            variance="fixed",
            latents="standardized",
        )

    def check_side(self, side: int) -> None:
        if side % self.stride:
            fits = [n for n in (2, 4, 8, 16) if side % n == 0]
            fix = f"choose pixels.model.stride among {', '.join(map(str, fits))}" if fits else "choose an even side"
            raise ConfigError("the target does not halve evenly", got=f"side {side}, stride {self.stride}", fix=fix)

    def build(self, data: GeneratorData) -> "Diffusion":
        from components.pixels.hybrid_network import HybridNetwork, HybridShape

        channels, side = self.square(data)
        n_halvings = self.stride.bit_length() - 1
        shape = HybridShape(
            c_in=channels,
            c_out=self.outputs(channels),
            side=side,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            channels=tuple(self.channels << level for level in range(n_halvings)),
        )
        width = self.width if self.uses("sequence") else None
        network = HybridNetwork(shape, sequence_width=width, c_extra=self.extra_channels(data))
        return self.generator(data, network)
