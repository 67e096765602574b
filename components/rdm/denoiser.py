"""The RDM's network: a residual MLP over a vector, told the time and, optionally, a context vector."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from components.nn.timestep import sinusoids

Terms = Sequence[Tensor]
"""What time or context adds to each block, (b or 1, width); depends on nothing that changes within a sampler's step."""


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

    def forward(self, x: Float[Tensor, "b width"], added: Float[Tensor, "#b width"]) -> Float[Tensor, "b width"]:
        out: Tensor = x + self.out_layers(self.in_layers(x) + added)
        return out


class ResidualMlp(nn.Module):
    """(x_t, t, context) -> x0. Parameter names are those of the reference's `SimpleMLP`.

    Paper: 2312.03701. Differs: none in function; LayerNorm eps is 1e-5 in the blocks and 1e-6 in `out`, as there.
    """

    def __init__(self, *, dim: int, width: int, depth: int, time_dim: int, context_dim: int | None) -> None:
        super().__init__()
        self.width = width
        self.input_proj = nn.Linear(dim, width)
        self.time_embed = nn.Sequential(nn.Linear(width, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim))
        self.res_blocks = nn.ModuleList(ResidualBlock(width, time_dim, context_dim) for _ in range(depth))
        head = nn.Linear(width, dim)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.out = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.SiLU(), head)

    def _blocks(self) -> list[ResidualBlock]:
        return cast(list[ResidualBlock], list(self.res_blocks))

    def time_terms(self, t: Int[Tensor, " n"]) -> list[Float[Tensor, "n width"]]:
        """What each block adds for the times t."""
        embedded = self.time_embed(sinusoids(t, self.width))
        return [block.emb_layers(embedded) for block in self._blocks()]

    def context_terms(self, context: Float[Tensor, "b context_dim"]) -> list[Float[Tensor, "b width"]]:
        """What each block adds for the context."""
        return [block.context_layers(context) for block in self._blocks()]

    def walk(self, x_t: Float[Tensor, "b dim"], terms: Terms) -> Float[Tensor, "b dim"]:
        """x0, given the sum of time and context terms of each block."""
        x = self.input_proj(x_t)
        for block, added in zip(self._blocks(), terms, strict=True):
            x = block(x, added)
        x0: Tensor = self.out(x)
        return x0

    def forward(
        self, x_t: Float[Tensor, "b dim"], t: Int[Tensor, " b"], context: Float[Tensor, "b context_dim"] | None
    ) -> Float[Tensor, "b dim"]:
        terms = self.time_terms(t)
        if context is not None:
            terms = [torch.add(a, c) for a, c in zip(terms, self.context_terms(context), strict=True)]
        return self.walk(x_t, terms)
