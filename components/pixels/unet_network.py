"""A UNet of either family as a diffusion network."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.conditions.container import Conditions
from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.errors import ConfigError
from components.nn.timestep import sinusoids
from components.nn.unet import UNet, UNetShape


class UNetNetwork(Network):
    """adm: a vector is added to the time, a sequence gives keys and values beside the image's.

    ldm: vector and sequence are the context, the vector as its first row; one width for both.
    Raises: ConfigError for an ldm UNet with a sequence of another width than its context.
    """

    input_weight = "unet.input_blocks.0.0.weight"

    def __init__(
        self, shape: UNetShape, *, sequence_width: int | None = None, c_extra: int = 0, drop_prob: float = 0.0
    ) -> None:
        has_context = shape.family == "ldm"
        super().__init__(
            vector_width=shape.context_dim if has_context else shape.time_dim,
            sequence_width=sequence_width,
            c_extra=c_extra,
        )
        if has_context and sequence_width not in (None, shape.context_dim):
            raise ConfigError(
                "an ldm UNet attends to rows of one width",
                got=f"a sequence of width {sequence_width}, a context of width {shape.context_dim}",
                fix="project the sequence to the width of the context",
            )
        shape = replace(shape, c_in=shape.c_in + c_extra, one_key=sequence_width is None)
        self.unet = UNet(shape if has_context else replace(shape, context_dim=sequence_width))
        self.width, self.has_context, self.drop_prob = shape.width, has_context, drop_prob

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n e"]:
        vectors: Tensor = self.unet.time_embed(sinusoids(t, self.width))
        return vectors

    def forward(
        self, x_t: Float[Tensor, "b c h w"], time: Float[Tensor, "#b e"], ports: Ports
    ) -> Float[Tensor, "b out h w"]:
        x = x_t if ports.spatial is None else torch.cat([x_t, ports.spatial], 1)
        if self.has_context:
            out: Tensor = self.unet(x, time, *_context(ports), ports.dropout)
        else:
            time = time if ports.vector is None else time + ports.vector
            out = self.unet(x, time, ports.sequence, ports.mask, ports.dropout)
        return out


def _context(ports: Ports) -> tuple[Float[Tensor, "b m context"] | None, Tensor | None]:
    """Vector and sequence as the rows of one context, and which of them count."""
    if ports.vector is None or ports.sequence is None:
        return (ports.sequence if ports.vector is None else ports.vector[:, None]), ports.mask
    mask = None if ports.mask is None else torch.cat([ports.mask.new_ones(len(ports.mask), 1), ports.mask], 1)
    return torch.cat([ports.vector[:, None], ports.sequence], 1), mask


@torch.no_grad()
def start_unconditional(conditions: Conditions) -> None:
    """Zero the projection of a representation: training starts from what the time alone says."""
    for embedder in conditions.values():
        project = getattr(embedder, "project", None)
        if isinstance(project, nn.Linear):
            for parameter in project.parameters():
                parameter.zero_()
