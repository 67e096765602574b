"""What a diffusion generator denoises with."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.conditions.ports import Ports
from components.errors import ShapeError


class Network(nn.Module):
    """(x_t, time vectors, conditions) -> prediction; which ports it has is known once it is built.

    A width of None, or no extra channels, means that the network lacks the port.
    """

    input_weight: ClassVar[str]
    """Name of the weight that reads x_t and, after it, a spatial condition: (out, channels, h, w)."""

    drop_prob = 0.0
    """Dropout of hidden activations in training, by Ports.dropout."""

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

    def prepare(self, ports: Ports) -> Ports:
        """The ports with what depends on them alone worked out: done once per sampling; a step does it itself else."""
        return ports

    def forward(self, x_t: Float[Tensor, "b ..."], time: Float[Tensor, "#b e"], ports: Ports) -> Float[Tensor, "b ..."]:
        """The prediction for x_t, followed by as many channels for a learned variance, scaled to [-1, 1].

        `time`: rows of time_vectors, one for all examples or one each.
        """
        raise NotImplementedError


def widened(weights: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """Trained weights of a network with fewer input channels, for this one: what the new channels hold has no effect.

    The new channels are the last ones, with weights of zero, so that training goes on from the same function.
    Paper: 2112.10741 (GLIDE, inpainting). Raises: ShapeError when the trained network has more channels.
    """
    trained, wanted = weights[network.input_weight], network.get_parameter(network.input_weight)
    n_new = wanted.shape[1] - trained.shape[1]
    if n_new < 0:
        raise ShapeError(
            "the trained network reads more channels", got=trained.shape[1], expected=f"at most {wanted.shape[1]}"
        )
    zeros = trained.new_zeros(len(trained), n_new, *trained.shape[2:])
    return {**weights, network.input_weight: torch.cat([trained, zeros], 1)}
