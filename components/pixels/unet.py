"""What the two UNet generators share: the sizes that a UNet is built from.

Imports without torch: unet() imports the sizes' class with the network.
"""

from abc import ABC
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.config import Config
from components.errors import ConfigError
from components.generators.config import GeneratorData
from components.pixels.base import PixelDiffusionConfig

if TYPE_CHECKING:
    from components.nn.unet import UNetShape


class HeadWidth(Config):
    """As many heads as fit."""

    width: int = Field(ge=1)
    """Channels of a head (ADM-64, -256 and -512: 64; LDM: 32); divides every level's channels."""


class HeadCount(Config):
    """As wide as it takes."""

    count: int = Field(ge=1)
    """Number of heads (ADM-128: 4); divides every level's channels."""


class UNetSizes(Config):
    """Sizes of a UNet, or of one half of it."""

    section: ClassVar[str]
    """Of params.yaml, whose model this is."""
    width: int = Field(ge=2, multiple_of=2)
    """Channels that the multipliers multiply (ADM-256, LDM-8: 256)."""
    multipliers: tuple[int | float, ...] = Field(min_length=1)
    """Channels per level, as multiples of width (ADM-512: 0.5 first); each level after the first halves the side."""
    n_blocks: int = Field(ge=1)
    """Residual blocks per level (2); one more on the way up."""
    attention_sides: tuple[int, ...]
    """Sides of the feature maps that get attention (32, 16, 8)."""
    heads: HeadWidth | HeadCount
    """Attention heads of every level: of one width, or of one number."""
    groups: int = Field(ge=1)
    """Groups of every GroupNorm (32); divides every level's channels."""

    @model_validator(mode="after")
    def _splits(self) -> Self:
        name, n_heads = next(iter(self.heads.model_dump().items()))
        for key, n in (("groups", self.groups), (f"heads.{name}", n_heads)):
            if bad := [m for m in self.multipliers if self.width * m % n]:
                raise ValueError(f"width {self.width} x {bad[0]} is no multiple of {key} {n}; lower {key}")
        return self

    def shape(self, channels: int, side: int, **more: Any) -> "UNetShape":
        """Sizes for an input of so many channels and this side. `more`: as of UNetShape."""
        from components.nn.unet import UNetShape

        return UNetShape(
            c_in=channels,
            width=self.width,
            multipliers=self.multipliers,
            n_blocks=self.n_blocks,
            attention=tuple(side // s for s in self.attention_sides),
            head_width=self.heads.width if isinstance(self.heads, HeadWidth) else None,
            heads=self.heads.count if isinstance(self.heads, HeadCount) else None,
            groups=self.groups,
            **more,
        )

    def check_side(self, side: int) -> None:
        """Raises: ConfigError for a target of a side that the network cannot take."""
        factor = 2 ** (len(self.multipliers) - 1)
        if side % factor:
            fix = f"choose a size that is a multiple of {factor}, or fewer {self.section}.model.multipliers"
            raise ConfigError("the target does not halve evenly", got=f"side {side}, {factor} times", fix=fix)
        sides = [side >> level for level in range(len(self.multipliers))]
        if missing := [s for s in self.attention_sides if s not in sides]:
            fix = f"choose {self.section}.model.attention_sides among {', '.join(map(str, sides))}"
            raise ConfigError("no feature map has this side", got=missing[0], fix=fix)


class UNetConfig(UNetSizes, PixelDiffusionConfig, ABC):
    """Diffusion by a UNet."""

    ports = ("vector", "sequence", "spatial")
    section = "pixels"
    family: ClassVar[Literal["adm", "ldm"]]

    def unet(self, data: GeneratorData, **more: Any) -> "UNetShape":
        """Sizes for the target. Raises: ConfigError naming what does not fit."""
        channels, side = self.square(data)
        return self.shape(channels, side, c_out=self.outputs(channels), family=self.family, **more)
