"""Attention over the positions of a feature map, as UNets use it. Parameter names are ADM's and latent diffusion's.

n: positions, c: channels.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as tf

from components.nn.attention import attend


class ImageAttention(nn.Module):
    """ADM's attention block: GroupNorm, qkv, heads of fixed width, zero-initialized projection, residual sum.

    Paper: 2105.05233. Differs: ADM multiplies q and k by head_width^-1/4 each, which is the same function; the rows of
    qkv go head by head (q, k, v of the first head, then of the second), as in its "legacy" order.
    """

    def __init__(self, channels: int, head_width: int, groups: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.norm = nn.GroupNorm(groups, channels, eps=1e-5)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        _zero(self.proj_out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        b, c, h, w = x.shape
        tokens = _tokens(self.norm(x))  # (b, n, c)
        qkv = tf.linear(tokens, self.qkv.weight[:, :, 0], self.qkv.bias)
        q, k, v = qkv.view(b, h * w, c // self.head_width, 3, self.head_width).permute(3, 0, 2, 1, 4)
        mixed = attend(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        out = tf.linear(mixed, self.proj_out.weight[:, :, 0], self.proj_out.bias)
        return x + _image(out, h, w)


class SpatialTransformer(nn.Module):
    """Latent diffusion's attention: one transformer block over positions, between 1x1 convolutions."""

    def __init__(self, channels: int, head_width: int, groups: int, context_dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([ContextBlock(channels, head_width, context_dim)])
        self.proj_out = nn.Conv2d(channels, channels, 1)
        _zero(self.proj_out)

    def forward(self, x: Float[Tensor, "b c h w"], context: Float[Tensor, "b context"]) -> Float[Tensor, "b c h w"]:
        tokens = _tokens(self.proj_in(self.norm(x)))
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        out: Tensor = x + self.proj_out(_image(tokens, *x.shape[2:]))
        return out


class ContextBlock(nn.Module):
    """Self-attention, attention to the context, gated MLP; each pre-normed, with a residual sum. LayerNorm eps 1e-5."""

    def __init__(self, width: int, head_width: int, context_dim: int) -> None:
        super().__init__()
        self.attn1 = SelfAttention(width, head_width)
        self.ff = GatedMlp(width)
        self.attn2 = OneKeyAttention(width, context_dim)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width).requires_grad_(False)  # feeds the queries of attn2 alone
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b context"]) -> Float[Tensor, "b n c"]:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(context)[:, None]
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class SelfAttention(nn.Module):
    """Heads of fixed width; q, k and v without bias."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        b, n, c = x.shape
        q, k, v = (to(x).view(b, n, -1, self.head_width).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v))
        out: Tensor = self.to_out(attend(q, k, v).transpose(1, 2).reshape(b, n, c))
        return out


class OneKeyAttention(nn.Module):
    """Attention to a context of length one, whose only weight is 1: every position gets the same vector.

    Queries and keys cannot matter and take no gradient; their matrices are kept for the papers' files.
    """

    def __init__(self, width: int, context_dim: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False).requires_grad_(False)
        self.to_k = nn.Linear(context_dim, width, bias=False).requires_grad_(False)
        self.to_v = nn.Linear(context_dim, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, context: Float[Tensor, "b context"]) -> Float[Tensor, "b c"]:
        out: Tensor = self.to_out(self.to_v(context))
        return out


class GatedLinear(nn.Module):
    """One half of a linear map, times the exact GELU of the other."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        out: Tensor = value * tf.gelu(gate)
        return out


class GatedMlp(nn.Module):
    """Hidden width 4 times the input's. Index 1 is the papers' dropout, which is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedLinear(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def _tokens(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """Positions in raster order; a view of a channels-last map."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[1])


def _image(tokens: Float[Tensor, "b n c"], h: int, w: int) -> Float[Tensor, "b c h w"]:
    return tokens.view(len(tokens), h, w, -1).permute(0, 3, 1, 2)


def _zero(conv: nn.Conv1d | nn.Conv2d) -> None:
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.zero_()
