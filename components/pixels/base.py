"""What the configs of all diffusion pixel generators share. Imports without torch, but for Diffusion in `generator`."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

from components.errors import ConfigError
from components.fields import find_field
from components.generators.config import DiffusionConfig, GeneratorData

if TYPE_CHECKING:
    from components.diffusion.network import Network
    from components.generators.diffusion import Diffusion


class PixelDiffusionConfig(DiffusionConfig, ABC):
    """Diffusion over pixels or latents."""

    latents: Literal["standardized", "as_stored"]
    """Scale of latents. standardized: per channel, by training images; as_stored: as the codec makes them (papers)."""

    @abstractmethod
    def check_side(self, side: int) -> None:
        """Raises: ConfigError for a target of a side that the network cannot take."""

    @abstractmethod
    def build(self, data: GeneratorData) -> "Diffusion":
        """Raises: ConfigError for tokens, a target that is not square, or one that the network cannot take."""

    def square(self, data: GeneratorData) -> tuple[int, int]:
        """Channels and side of a target. Raises: ConfigError for a target that does not suit."""
        spec, kind = data.target, getattr(self, "kind", "diffusion")
        if spec.space == "tokens":
            fix = "let the codec store latents instead (codec: none, or vqgan with latents), or use pixels kind: mage"
            raise ConfigError(f"{kind} works on pixels or latents, but the codec stores tokens", fix=fix)
        channels, height, width = spec.shape
        if height != width:
            raise ConfigError(f"{kind} needs a square target", got=spec.shape)
        self.check_side(height)
        return channels, height

    def extra_channels(self, data: GeneratorData) -> int:
        """Channels of the conditions that enter by the spatial port. Raises: ConfigError for a field that is absent."""
        images = [condition for condition in self.conditions if condition.port == "spatial"]
        shapes = [
            data.target.shape if image.inpaints else find_field(data.fields, image.field).shape for image in images
        ]
        planes = sum(image.kind in ("masked_image", "low_res") for image in images)  # a mask, or the level of noise
        return planes + sum(shape[0] for shape in shapes)

    def generator(self, data: GeneratorData, network: "Network", *, constant: bool = False) -> "Diffusion":
        """Diffusion with this network. `constant`: the network needs a vector."""
        from components.conditions.container import Conditions
        from components.generators.diffusion import Diffusion

        conditions = Conditions(self.conditions, network, data.fields, constant=constant)
        standardize = data.target.space == "latents" and self.latents == "standardized"
        return Diffusion(self, data, spec=data.target, network=network, conditions=conditions, standardize=standardize)
