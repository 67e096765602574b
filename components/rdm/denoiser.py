"""The RDM's network: a residual MLP over a vector, modulated by time and, optionally, a context vector."""

from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.nn.timestep import sinusoids


class ResidualBlock(nn.Module):
    """x + out(in(x) + time term + context term), all of one width; starts as the identity."""

    def __init__(self, width: int, time_dim: int, context_dim: int | None) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.LayerNorm(width, eps=1e-5), nn.SiLU(), nn.Linear(width, width))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, width))
        if context_dim is not None:
            self.context_layers = nn.Sequential(nn.SiLU(), nn.Linear(context_dim, width))
        last = nn.Linear(width, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        # Index 2 is the reference's dropout of probability 0: it keeps the names of its weights.
        self.out_layers = nn.Sequential(nn.LayerNorm(width, eps=1e-5), nn.SiLU(), nn.Identity(), last)

    def forward(
        self, x: Float[Tensor, "b width"], added: Float[Tensor, "#b width"], context: Float[Tensor, "b width"] | None
    ) -> Float[Tensor, "b width"]:
        """`added`: the time term; `context`: the context term."""
        added = added if context is None else added + context
        out: Tensor = x + self.out_layers(self.in_layers(x) + added)
        return out


class ResidualMlp(Network):
    """(x_t, time vectors, conditions) -> prediction; a vector is added inside every block. Names are `SimpleMLP`'s.

    `index`: what the component's index is embedded to is added to the vector.
    Paper: 2312.03701. Differs: none in function; LayerNorm eps is 1e-5 in the blocks and 1e-6 in `out`, as there.
    """

    def __init__(
        self,
        *,
        dim: int,
        c_out: int,
        width: int,
        depth: int,
        time_dim: int,
        context_dim: int | None,
        index: bool = False,
    ) -> None:
        super().__init__(vector_width=context_dim)
        self.width = width
        self.input_proj = nn.Linear(dim, width)
        self.time_embed = _two_layers(width, time_dim)
        self.res_blocks = nn.ModuleList(ResidualBlock(width, time_dim, context_dim) for _ in range(depth))
        head = nn.Linear(width, c_out)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.out = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.SiLU(), head)
        self.index_embed = _two_layers(width, context_dim) if index and context_dim is not None else None

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n e"]:
        """What each block adds for the times t, one block after the other: e = depth * width."""
        embedded = self.time_embed(sinusoids(t, self.width))
        return torch.cat([block.emb_layers(embedded) for block in self._blocks()], 1)

    def prepare(self, ports: Ports) -> Ports:
        """Adds the context terms of all blocks, one after the other: (b, depth * width)."""
        if ports.prepared is not None:
            return ports
        vector = ports.vector
        if self.index_embed is not None and ports.component is not None:
            index = self.index_embed(sinusoids(ports.component, self.width))
            vector = index if vector is None else vector + index
        if vector is None:
            return ports
        return replace(ports, prepared=torch.cat([block.context_layers(vector) for block in self._blocks()], 1))

    def forward(self, x_t: Float[Tensor, "b dim"], time: Float[Tensor, "#b e"], ports: Ports) -> Float[Tensor, "b out"]:
        x, n, terms = self.input_proj(x_t), len(self.res_blocks), self.prepare(ports).prepared
        contexts = [None] * n if terms is None else terms.chunk(n, 1)
        for block, added, context in zip(self._blocks(), time.chunk(n, 1), contexts, strict=True):
            x = block(x, added, context)
        x0: Tensor = self.out(x)
        return x0

    def _blocks(self) -> list[ResidualBlock]:
        return cast(list[ResidualBlock], list(self.res_blocks))


def _two_layers(n_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, width))
