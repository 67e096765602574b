"""DiT: diffusion by a transformer over patches. Paper: 2212.09748."""

from typing import Literal

from pydantic import Field

from components.diffusion.schedule import ScheduleConfig
from components.errors import ConfigError
from components.generators.config import DiffusionConfig
from components.pixels.base import PixelData
from components.pixels.condition import ConditionConfig
from components.pixels.diffusion import DiffusionGenerator
from components.pixels.dit_network import DitNetwork, DitShape


class DitConfig(DiffusionConfig):
    """Diffusion transformer on pixels or latents."""

    kind: Literal["dit"]
    condition: ConditionConfig
    """What the generator is told about the image."""
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

    @classmethod
    def tiny(cls) -> "DitConfig":
        return cls(
            kind="dit",
            condition=ConditionConfig.tiny(),
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

    def build(self, data: PixelData) -> DiffusionGenerator:
        """Raises: ConfigError for tokens, a target that is not square, or a patch that does not divide its side."""
        spec = data.target
        if spec.space == "tokens":
            fix = "let the codec store latents instead (codec: none, or vqgan with latents), or use pixels kind: mage"
            raise ConfigError("dit works on pixels or latents, but the codec stores tokens", fix=fix)
        channels, height, width = spec.shape
        if height != width:
            raise ConfigError("dit needs a square target", got=spec.shape)
        self.check_side(height)
        shape = DitShape(
            c_in=channels,
            c_out=channels * (2 if self.variance == "learned" else 1),
            side=height,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            patch=self.patch,
            mlp_ratio=self.mlp_ratio,
        )
        network = DitNetwork(shape)
        return DiffusionGenerator(self, data, condition=self.condition, network=network, width=self.width)
