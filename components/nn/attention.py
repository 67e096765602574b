"""Transformer building blocks shared by the ViT encoder, MAGE and DiT. Parameter names are timm's."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from components.errors import ConfigError
from components.nn.dropout import RowDropout
from components.nn.unit import Unit


def attend(
    q: Float[Tensor, "b heads n d"],
    k: Float[Tensor, "b heads m d"],
    v: Float[Tensor, "b heads m d"],
    mask: Bool[Tensor, "b m"] | None = None,
) -> Float[Tensor, "b heads n d"]:
    """softmax(q k^T / sqrt(d)) v on the fused kernel: the weights are never stored.

    `mask`: the keys that count, all if None. A row of it without any key needs care by the caller: kernels differ.
    """
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])


def attend_explicitly(
    q: Float[Tensor, "b heads n d"],
    k: Float[Tensor, "b heads m d"],
    v: Float[Tensor, "b heads m d"],
    mask: Bool[Tensor, "b m"] | None = None,
    *,
    drop: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "b heads n d"]:
    """The same function written out, for where the weights themselves are needed: `drop` zeroes some of them.

    The fused kernel would sample that dropout from the global generator.
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    weights = (logits if mask is None else logits.masked_fill(~mask[:, None, None], -torch.inf)).softmax(-1)
    return (weights if drop is None else drop(weights)) @ v


class Attention(nn.Module):
    """Multi-head self-attention, qkv in one matrix, softmax scale head_dim^-0.5. `mask`: the keys that count.

    Differs: fused scaled_dot_product_attention, where the reference multiplies out the weights.
    Raises: ConfigError unless heads divides dim.
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(
                "attention width does not split evenly over its heads",
                got=f"width {dim}, heads {heads}",
                fix="choose a width that is a multiple of heads",
            )
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b n dim"],
        mask: Bool[Tensor, "b n"] | None = None,
        drop: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "b n dim"]:
        """`drop`: dropout of the attention weights."""
        b, n, dim = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)  # (b, heads, n, d)
        mixed = attend(q, k, v, mask) if drop is None else attend_explicitly(q, k, v, mask, drop=drop)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(b, n, dim))
        return out

    def at(
        self, x: Float[Tensor, "b n dim"], places: Float[Tensor, "b m dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b m dim"]:
        """The outputs for the rows `places` of x: keys and values come from all of x."""
        b, n, dim = x.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        q_bias, kv_bias = (None, None) if bias is None else (bias[:dim], bias[dim:])
        q = nn.functional.linear(places, weight[:dim], q_bias).view(b, -1, self.heads, dim // self.heads)
        kv = nn.functional.linear(x, weight[dim:], kv_bias).view(b, n, 2, self.heads, dim // self.heads)
        k, v = kv.permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(attend(q.transpose(1, 2), k, v, mask).transpose(1, 2).reshape(b, -1, dim))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention from x to a sequence; its output starts at zero. Names of PixArt-alpha (2310.00426).

    An example whose sequence is masked as a whole gets the bias of the last layer alone.
    """

    def __init__(self, dim: int, heads: int, sequence_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(dim, dim)
        self.kv_linear = nn.Linear(sequence_width, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.initialize()

    def initialize(self) -> None:
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, x: Float[Tensor, "b n dim"], sequence: Float[Tensor, "b m s"], mask: Bool[Tensor, "b m"] | None
    ) -> Float[Tensor, "b n dim"]:
        b, n, dim = x.shape
        q = self.q_linear(x).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = self.kv_linear(sequence).view(b, -1, 2, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        if mask is None:
            mixed = attend(q, k, v)
        else:
            some = mask.any(1, keepdim=True)  # (b, 1)
            mixed = attend(q, k, v, mask | ~some) * some[:, :, None, None]
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(b, n, dim))
        return out


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b dim"]:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(Unit, nn.Module):
    """Pre-norm transformer block: x + attention(norm1(x)), then x + mlp(norm2(x)). `eps`: of the LayerNorms."""

    N_MASKS = 4
    """Of a dropout: attention weights, attention output and both layers of the MLP."""

    def __init__(self, dim: int, heads: int, *, mlp_ratio: float, qkv_bias: bool, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self,
        x: Float[Tensor, "b n dim"],
        mask: Bool[Tensor, "b n"] | None = None,
        dropout: RowDropout | None = None,
    ) -> Float[Tensor, "b n dim"]:
        if dropout is None:
            x = x + self.attn(self.norm1(x), mask)
            out: Tensor = x + self.mlp(self.norm2(x))
            return out
        x = x + dropout(self.attn(self.norm1(x), mask, partial(dropout, number=1)), 2)
        hidden = dropout(self.mlp.act(self.mlp.fc1(self.norm2(x))), 3)
        return x + dropout(self.mlp.fc2(hidden), 4)

    def at(
        self, x: Float[Tensor, "b n dim"], index: Int[Tensor, "b m"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b m dim"]:
        """forward(x, mask) at some positions only, for a last block whose other outputs are not read."""
        index = index[:, :, None].expand(-1, -1, x.shape[2])
        normed = self.norm1(x)
        x = x.gather(1, index) + self.attn.at(normed, normed.gather(1, index), mask)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out
