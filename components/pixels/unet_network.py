"""A UNet of either family as a diffusion network."""

from jaxtyping import Float, Int
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.nn.timestep import sinusoids
from components.nn.unet import UNet, UNetShape


class UNetNetwork(Network):
    """A UNet as a diffusion network. The condition is added to the time where there is no context."""

    def __init__(self, shape: UNetShape) -> None:
        has_context = shape.family == "ldm"
        super().__init__(vector_width=shape.context_dim if has_context else shape.time_dim)
        self.unet = UNet(shape)
        self.width, self.has_context = shape.width, has_context

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n e"]:
        vectors: Tensor = self.unet.time_embed(sinusoids(t, self.width))
        return vectors

    def forward(
        self, x_t: Float[Tensor, "b c h w"], time: Float[Tensor, "#b e"], ports: Ports
    ) -> Float[Tensor, "b out h w"]:
        if self.has_context:
            out: Tensor = self.unet(x_t, time, ports.vector)
        else:
            out = self.unet(x_t, time if ports.vector is None else time + ports.vector, None)
        return out
