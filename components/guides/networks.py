"""A UNet's encoder as the network of a guide."""

from jaxtyping import Float, Int
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.nn.timestep import sinusoids
from components.nn.unet import UNetShape
from components.nn.unet_encoder import UNetEncoder


class PooledUNet(Network):
    """(x_t, time vectors) -> one number per class; it has no ports."""

    input_weight = "unet.input_blocks.0.0.weight"

    def __init__(self, shape: UNetShape, side: int) -> None:
        super().__init__(vector_width=None)
        self.unet, self.width = UNetEncoder(shape, side), shape.width

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n e"]:
        vectors: Tensor = self.unet.time_embed(sinusoids(t, self.width))
        return vectors

    def forward(
        self, x_t: Float[Tensor, "b c h w"], time: Float[Tensor, "#b e"], _ports: Ports
    ) -> Float[Tensor, "b k"]:
        logits: Tensor = self.unet(x_t, time)
        return logits
