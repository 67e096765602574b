"""The causal transformer over conditions, time and a noised vector: the prior of Corgi and that of unCLIP.

W: width, m: rows of the sequence, n: tokens. The tokens are the rows of the sequence, the vector, time, the component,
the noised vector, and a learned query, whose output is the prediction; what a model does not have is left out.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.errors import ShapeError
from components.nn.timestep import sinusoids

_STD = 0.02


@dataclass(frozen=True)
class CausalShape:
    """Sizes. A port's width of None, or index False, leaves its tokens out. n_tokens: most rows of a sequence."""

    family: Literal["corgi", "unclip"]
    dim: int
    c_out: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    vector_width: int | None
    sequence_width: int | None
    n_tokens: int
    index: bool


class CausalAttention(nn.Module):
    """Each token attends to itself and those before it. Names are those of diffusers."""

    def __init__(self, width: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=bias) for _ in range(3))
        self.to_out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Float[Tensor, "b n W"], seen: Bool[Tensor, "#b 1 n n"]) -> Float[Tensor, "b n W"]:
        b, n, _ = x.shape
        q, k, v = (of(x).view(b, n, self.heads, -1).transpose(1, 2) for of in (self.to_q, self.to_k, self.to_v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out: Tensor = self.to_out(mixed.transpose(1, 2).reshape(b, n, -1))
        return out


class Gated(nn.Module):
    """Half of the first layer's output, times the other half's GELU. Paper: 2002.05202, GEGLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj, self.out = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n W"]) -> Float[Tensor, "b n W"]:
        value, gate = self.proj(x).chunk(2, dim=-1)
        out: Tensor = self.out(value * nn.functional.gelu(gate))
        return out


class Plain(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj, self.out = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n W"]) -> Float[Tensor, "b n W"]:
        out: Tensor = self.out(nn.functional.gelu(self.proj(x)))
        return out


class CausalBlock(nn.Module):
    """Pre-norm. corgi: RMS norms, no biases in attention, gated MLP; unclip: layer norms, biases, plain MLP."""

    def __init__(self, shape: CausalShape) -> None:
        super().__init__()
        corgi, width = shape.family == "corgi", shape.width
        self.norm1, self.norm2 = (nn.RMSNorm(width, eps=1e-16) if corgi else nn.LayerNorm(width) for _ in range(2))
        self.attn = CausalAttention(width, shape.heads, bias=not corgi)
        self.mlp = (Gated if corgi else Plain)(width, int(width * shape.mlp_ratio))

    def forward(self, x: Float[Tensor, "b n W"], seen: Bool[Tensor, "#b 1 n n"]) -> Float[Tensor, "b n W"]:
        x = x + self.attn(self.norm1(x), seen)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class CausalTransformer(Network):
    """Papers: 2211.15388 (corgi: no positions, no last norm), 2204.06125 (unclip: learned positions).

    Differs: in Corgi's code layer norms have a bias that is not trained. Raises: ShapeError for a longer sequence.
    """

    def __init__(self, shape: CausalShape) -> None:
        super().__init__(vector_width=shape.vector_width, sequence_width=shape.sequence_width)
        width, self.shape, corgi = shape.width, shape, shape.family == "corgi"
        self.time_embed = _two_layers(width, width)
        self.index_embed = _two_layers(width, width) if shape.index else None
        self.x_proj = _of_vector(shape.dim, width) if corgi else nn.Linear(shape.dim, width)
        self.text_proj = self.token_proj = None
        if shape.vector_width:
            self.text_proj = _of_vector(shape.vector_width, width) if corgi else nn.Linear(shape.vector_width, width)
        if shape.sequence_width:
            rows = shape.sequence_width
            self.token_proj = _of_rows(rows, width) if corgi else nn.Linear(rows, width)
        self.query = nn.Parameter(_STD * torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(CausalBlock(shape) for _ in range(shape.depth))
        n = 3 + (self.text_proj is not None) + shape.index + (shape.n_tokens if shape.sequence_width else 0)
        self.positions = None if corgi else nn.Parameter(_STD * torch.randn(1, n, width))
        self.norm = None if corgi else nn.LayerNorm(width)
        self.out = _head(width, shape.c_out) if corgi else nn.Linear(width, shape.c_out)

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n W"]:
        out: Tensor = self.time_embed(sinusoids(t, self.shape.width))
        return out

    def prepare(self, ports: Ports) -> Ports:
        """Adds the tokens of the conditions and, after them, of the component: (b, tokens, W)."""
        if ports.prepared is not None:
            return ports
        parts = []
        if self.token_proj is not None and ports.sequence is not None:
            if ports.sequence.shape[1] > self.shape.n_tokens:
                expected = f"at most {self.shape.n_tokens}"
                raise ShapeError("a sequence is too long", got=ports.sequence.shape[1], expected=expected)
            parts.append(self.token_proj(ports.sequence))
        if self.text_proj is not None and ports.vector is not None:
            parts.append(self.text_proj(ports.vector)[:, None])
        if self.index_embed is not None and ports.component is not None:
            parts.append(self.index_embed(sinusoids(ports.component, self.shape.width))[:, None])
        return replace(ports, prepared=torch.cat(parts, 1)) if parts else ports

    def forward(self, x_t: Float[Tensor, "b dim"], time: Float[Tensor, "#b W"], ports: Ports) -> Float[Tensor, "b out"]:
        b, ports = len(x_t), self.prepare(ports)
        before = x_t.new_zeros(b, 0, self.shape.width) if ports.prepared is None else ports.prepared
        index = before[:, before.shape[1] - self.shape.index :]
        before = before[:, : before.shape[1] - self.shape.index]
        last = [time[:, None].expand(b, -1, -1), index, self.x_proj(x_t)[:, None], self.query.expand(b, -1, -1)]
        x = torch.cat([before, *last], 1)  # (b, n, W)
        m = 0 if ports.sequence is None else ports.sequence.shape[1]
        if self.positions is not None:
            x = x + torch.cat([self.positions[:, :m], self.positions[:, self.positions.shape[1] - x.shape[1] + m :]], 1)
        seen = _seen(x.shape[1], ports.mask, x.device)
        for block in self.blocks:
            x = block(x, seen)
        x = x[:, -1] if self.norm is None else self.norm(x[:, -1])
        out: Tensor = self.out(x)
        return out


def _seen(n: int, mask: Bool[Tensor, "b m"] | None, device: torch.device) -> Bool[Tensor, "#b 1 n n"]:
    """Which tokens each one attends to; a hidden one sees itself, so that its row, which nobody reads, is finite."""
    before = torch.ones(n, n, dtype=torch.bool, device=device).tril()[None, None]
    if mask is None:
        return before
    counts = nn.functional.pad(mask, (0, n - mask.shape[1]), value=True)[:, None, None]
    return (before & counts) | torch.eye(n, dtype=torch.bool, device=device)


def _two_layers(n_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, width))


def _of_vector(n_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.LayerNorm(width), nn.Linear(width, width))


def _of_rows(n_in: int, width: int) -> nn.Sequential:
    layers = nn.Linear(n_in, width), nn.SiLU(), nn.LayerNorm(width), nn.Linear(width, width)
    return nn.Sequential(nn.LayerNorm(n_in), *layers)


def _head(width: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, n_out), nn.SiLU(), nn.Linear(n_out, n_out))
