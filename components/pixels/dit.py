"""DiT: diffusion by a transformer over patches. Paper: 2212.09748.

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


class DitConfig(PixelDiffusionConfig):
    """Diffusion transformer on pixels or latents."""

    ports = ("vector", "sequence", "spatial")
    kind: Literal["dit"]
    width: int = Field(ge=4, multiple_of=4)
    """Width of the tokens (XL: 1152)."""
    depth: int = Field(ge=1)
    """Number of blocks (XL: 28)."""
    heads: int = Field(ge=1)
    """Attention heads; must divide width (XL: 16)."""
    patch: int = Field(ge=1)
    """Side of a square patch in target elements; must divide the target's side."""
    mlp_ratio: float = Field(gt=0)
    """Hidden width of a block's MLP over width (DiT: 4)."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        check_divides("heads", self.heads, "width", self.width)
        return self

    @classmethod
    def tiny(cls) -> "DitConfig":
        return cls(
            kind="dit",
            conditions=(RepresentationConfig.tiny(),),
            width=16,
            depth=2,
            heads=2,
            patch=2,
            mlp_ratio=2.0,
            schedule=ScheduleConfig.tiny(),
            prediction="v",
            min_snr=None,
            variance="fixed",
            latents="standardized",
        )

    def check_side(self, side: int) -> None:
        if side % self.patch:
            fix = f"choose pixels.model.patch among the divisors of {side}"
            got = f"side {side}, patch {self.patch}"
            raise ConfigError("the target does not split evenly into patches", got=got, fix=fix)

    def build(self, data: GeneratorData) -> "Diffusion":
        from components.pixels.dit_network import DitNetwork, DitShape

        channels, side = self.square(data)
        shape = DitShape(
            c_in=channels,
            c_out=self.outputs(channels),
            side=side,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            patch=self.patch,
            mlp_ratio=self.mlp_ratio,
        )
        width = self.width if self.uses("sequence") else None
        network = DitNetwork(shape, sequence_width=width, c_extra=self.extra_channels(data))
        return self.generator(data, network)
