"""Attention over the positions of a feature map, as UNets use it. Parameter names are ADM's and latent diffusion's.

n: positions, c: channels, m: positions of a sequence or context; a mask is True where one counts.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as tf

from components.nn.attention import attend

QkvOrder = Literal["per_head", "stacked"]
"""Order of the rows of a qkv matrix. per_head: q, k and v of the first head, then of the second ("legacy" in ADM's
code); stacked: q of all heads, then k, then v ("new"). Shapes are equal, so a file does not say which it is."""


class ImageAttention(nn.Module):
    """ADM's attention block: GroupNorm, qkv, heads, zero-initialized projection, residual sum.

    Built with a sequence width, positions attend to a sequence, too, as in GLIDE: its keys and values stand before the
    image's in one softmax, their rows per head (k and v of the first head, then of the second).
    Paper: 2105.05233 (ADM), 2112.10741 (GLIDE). Differs: ADM multiplies q and k by head_width^-1/4 each, which is the
    same function.
    """

    def __init__(
        self, channels: int, head_width: int, groups: int, *, order: QkvOrder, sequence_width: int | None
    ) -> None:
        super().__init__()
        self.head_width, self.order = head_width, order
        self.norm = nn.GroupNorm(groups, channels, eps=1e-5)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.encoder_kv = None if sequence_width is None else nn.Conv1d(sequence_width, 2 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        _zero(self.proj_out)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        sequence: Float[Tensor, "b m s"] | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        b, c, h, w = x.shape
        qkv = _pointwise(self.qkv, _tokens(self.norm(x)))  # (b, n, 3c)
        q, k, v = _split_heads(qkv, 3, self.head_width, self.order)
        if self.encoder_kv is not None and sequence is not None:
            key, value = _split_heads(_pointwise(self.encoder_kv, sequence), 2, self.head_width, "per_head")
            k, v = torch.cat([key, k], 2), torch.cat([value, v], 2)
            mask = None if mask is None else torch.cat([mask, mask.new_ones(b, h * w)], 1)
        else:
            mask = None
        mixed = attend(q, k, v, mask).transpose(1, 2).reshape(b, h * w, c)
        return x + _image(_pointwise(self.proj_out, mixed), h, w)


class AttentionPool(nn.Module):
    """A feature map -> one row of `c_out`: the attention of the mean position, which stands before the others.

    Positions are learned, so the map has a fixed side; rows of qkv are stacked. Names are those of ADM's classifiers.
    Paper: 2105.05233, app. H (as in CLIP, 2103.00020).
    """

    def __init__(self, side: int, channels: int, head_width: int, c_out: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.positional_embedding = nn.Parameter(torch.empty(channels, side**2 + 1))
        nn.init.normal_(self.positional_embedding, std=channels**-0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, c_out, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out"]:
        rows = _tokens(x)
        rows = torch.cat([rows.mean(1, keepdim=True), rows], 1) + self.positional_embedding.T  # (b, 1 + n, c)
        q, k, v = _split_heads(_pointwise(self.qkv_proj, rows), 3, self.head_width, "stacked")
        mixed = attend(q[:, :, :1], k, v).reshape(len(x), 1, -1)
        return _pointwise(self.c_proj, mixed)[:, 0]


class SpatialTransformer(nn.Module):
    """Latent diffusion's attention: one transformer block over positions, between 1x1 convolutions."""

    def __init__(self, channels: int, head_width: int, groups: int, context_dim: int, *, one_key: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([ContextBlock(channels, head_width, context_dim, one_key=one_key)])
        self.proj_out = nn.Conv2d(channels, channels, 1)
        _zero(self.proj_out)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        context: Float[Tensor, "b m context"],
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        tokens = _tokens(self.proj_in(self.norm(x)))
        for block in self.transformer_blocks:
            tokens = block(tokens, context, mask)
        out: Tensor = x + self.proj_out(_image(tokens, *x.shape[2:]))
        return out


class ContextBlock(nn.Module):
    """Self-attention, attention to the context, gated MLP; each pre-normed, with a residual sum. LayerNorm eps 1e-5.

    The softmax over a context of length one is 1 whatever queries and keys are, so that every position gets the same
    vector. `one_key`: no other context ever comes; what cannot matter then takes no gradient and is kept for the
    papers' files.
    """

    def __init__(self, width: int, head_width: int, context_dim: int, *, one_key: bool) -> None:
        super().__init__()
        self.attn1 = HeadedAttention(width, width, head_width)
        self.ff = GatedMlp(width)
        self.attn2 = HeadedAttention(width, context_dim, head_width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        for module in (self.attn2.to_q, self.attn2.to_k, self.norm2):  # norm2 feeds the queries alone
            module.requires_grad_(not one_key)

    def forward(
        self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b m context"], mask: Bool[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b n c"]:
        x = x + self.attn1(normed := self.norm1(x), normed)
        if context.shape[1] == 1 and mask is None:
            x = x + self.attn2.to_out(self.attn2.to_v(context[:, 0]))[:, None]
        else:
            x = x + self.attn2(self.norm2(x), context, mask)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class HeadedAttention(nn.Module):
    """Attention from x to a context, which may be x; heads of one width; q, k and v without bias."""

    def __init__(self, width: int, context_dim: int, head_width: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_dim, width, bias=False)
        self.to_v = nn.Linear(context_dim, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(
        self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b m d"], mask: Bool[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b n c"]:
        q, k, v = (
            rows.view(len(x), -1, rows.shape[2] // self.head_width, self.head_width).transpose(1, 2)
            for rows in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        out: Tensor = self.to_out(attend(q, k, v, mask).transpose(1, 2).reshape(x.shape))
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
    """Hidden width 4 times the input's. Index 1 is the paper's dropout, which is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedLinear(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def _pointwise(conv: nn.Conv1d, rows: Float[Tensor, "b n c"]) -> Float[Tensor, "b n d"]:
    """A convolution of width 1 as a linear map of rows."""
    return tf.linear(rows, conv.weight[:, :, 0], conv.bias)


def _split_heads(
    rows: Float[Tensor, "b n c"], parts: int, head_width: int, order: QkvOrder
) -> Float[Tensor, "{parts} b heads n {head_width}"]:
    b, n, _ = rows.shape
    if order == "per_head":
        return rows.view(b, n, -1, parts, head_width).permute(3, 0, 2, 1, 4)
    return rows.view(b, n, parts, -1, head_width).permute(2, 0, 3, 1, 4)


def _tokens(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """Positions in raster order; a view of a channels-last map."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[1])


def _image(tokens: Float[Tensor, "b n c"], h: int, w: int) -> Float[Tensor, "b c h w"]:
    return tokens.view(len(tokens), h, w, -1).permute(0, 3, 1, 2)


def _zero(conv: nn.Conv1d | nn.Conv2d) -> None:
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.zero_()
