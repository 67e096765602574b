"""What a diffusion generator denoises with."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from components.conditions.ports import Ports


class Network(nn.Module):
    """(x_t, time vectors, conditions) -> prediction; which ports it has is known once it is built.

    A width of None, or no extra channels, means that the network lacks the port.
    """

    def __init__(self, *, vector_width: int | None, sequence_width: int | None = None, c_extra: int = 0) -> None:
        super().__init__()
        self.vector_width, self.sequence_width, self.c_extra = vector_width, sequence_width, c_extra

    @property
    def ports(self) -> frozenset[str]:
        """Names of the fields of `Ports` by which conditions can enter this network."""
        sizes = {"vector": self.vector_width, "sequence": self.sequence_width, "spatial": self.c_extra}
        return frozenset(port for port, size in sizes.items() if size)

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n e"]:
        """The part of the network that sees nothing but the time."""
        raise NotImplementedError

    def forward(self, x_t: Float[Tensor, "b ..."], time: Float[Tensor, "#b e"], ports: Ports) -> Float[Tensor, "b ..."]:
        """The prediction for x_t, followed by as many channels for a learned variance, scaled to [-1, 1].

        `time`: rows of time_vectors, one for all examples or one each.
        """
        raise NotImplementedError
