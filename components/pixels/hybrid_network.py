"""A transformer between convolutions: tokens decide what the picture shows, convolutions at every size how it looks.

The stem halves x_t until a token is as large as a patch of a DiT; the head doubles the tokens back and adds the stem's
maps, so that its last convolutions see what lies on both sides of a patch's border: patches do not show.
Paper: 2301.11093 (a transformer inside a UNet, U-ViT), with the blocks of 2212.09748 (DiT).
c: channels of the largest maps, n: tokens, e: the vector that modulates (time and condition).
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as tf

from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.nn.attention import CrossAttention
from components.nn.patches import sincos_positions
from components.nn.unit import Unit
from components.pixels.dit_network import DitBlock, TimeEmbedder

GROUPS = 8
"""Groups of every GroupNorm."""


@dataclass(frozen=True)
class HybridShape:
    """Sizes of the network without its further ports."""

    c_in: int
    c_out: int
    side: int
    """Of x_t, in target elements."""
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    channels: tuple[int, ...]
    """Of the stem's maps, the largest first; each is half as large as the one before, the tokens half the last."""


class ModulatedConvs(Unit, nn.Module):
    """Norm, SiLU, conv; a norm that e shifts and scales, SiLU, zero-initialized conv; plus the input."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = _conv(channels, channels)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * channels))
        self.norm2 = nn.GroupNorm(GROUPS, channels, affine=False)
        self.conv2 = _conv(channels, channels)

    def initialize(self) -> None:
        _zero(self.modulation[1], self.conv2)

    def forward(self, x: Float[Tensor, "b c h w"], e: Float[Tensor, "#b width"]) -> Float[Tensor, "b c h w"]:
        shift, scale = self.modulation(e)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(tf.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(tf.silu(torch.addcmul(shift, self.norm2(h), 1 + scale)))
        return out


class Rise(nn.Module):
    """Twice the side: a 1x1 convolution, nearest neighbor, plus the stem's map of that size, then convolutions."""

    def __init__(self, c_in: int, c_out: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(c_in, c_out, 1)
        self.skip = nn.Conv2d(c_out, c_out, 1)
        self.convs = ModulatedConvs(c_out, width)

    def forward(
        self, x: Float[Tensor, "b c h w"], kept: Float[Tensor, "b d h2 w2"], e: Float[Tensor, "#b width"]
    ) -> Float[Tensor, "b d h2 w2"]:
        large = tf.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest")
        out: Tensor = self.convs(large + self.skip(kept), e)
        return out


class HybridNetwork(Network):
    """A vector is added to the time, a sequence is attended to by every block, a spatial condition is read with x_t.

    Convolutions run channels-last: faster on CPU and GPU alike.
    """

    input_weight = "stem.0.weight"

    def __init__(self, shape: HybridShape, *, sequence_width: int | None = None, c_extra: int = 0) -> None:
        width, channels = shape.width, shape.channels
        super().__init__(vector_width=width, sequence_width=sequence_width, c_extra=c_extra)
        self.stem = nn.ModuleList([_conv(shape.c_in + c_extra, channels[0])])
        for c_in, c_out in zip(channels, (*channels[1:], width), strict=True):
            halves = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1)
            self.stem.append(nn.Sequential(nn.GroupNorm(GROUPS, c_in), nn.SiLU(), halves))
        self.t_embedder = TimeEmbedder(width)
        positions = sincos_positions(shape.side >> len(channels), width)
        self.pos_embed = nn.Parameter(positions[None], requires_grad=False)  # (1, n, width)
        self.blocks = nn.ModuleList(
            DitBlock(width, shape.heads, shape.mlp_ratio, sequence_width) for _ in range(shape.depth)
        )
        rises = zip((width, *reversed(channels[1:])), reversed(channels), strict=True)
        self.head = nn.ModuleList(Rise(c_in, c_out, width) for c_in, c_out in rises)
        self.norm_final = nn.GroupNorm(GROUPS, channels[0])
        self.final = _conv(channels[0], shape.c_out)
        self._initialize()

    def _initialize(self) -> None:
        """As DiT: Xavier, N(0, 0.02) in the time MLP, zero modulation; last convolutions are zero.

        So every block starts as the identity, and the network by predicting zero. The other convolutions keep the size
        of what they read: tokens that are small beside their positions learn late.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.zeros_(cast(Tensor, module.bias))
        for linear in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(cast(Tensor, linear.weight), std=0.02)
        _zero(self.final, *(cast(DitBlock, block).adaLN_modulation[1] for block in self.blocks))
        for module in self.modules():
            if isinstance(module, ModulatedConvs | CrossAttention):
                module.initialize()

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n width"]:
        vectors: Tensor = self.t_embedder(t)
        return vectors

    def forward(
        self, x_t: Float[Tensor, "b c h w"], time: Float[Tensor, "#b width"], ports: Ports
    ) -> Float[Tensor, "b out h w"]:
        e = time if ports.vector is None else time + ports.vector
        x = x_t if ports.spatial is None else torch.cat([x_t, ports.spatial], 1)
        x, kept = x.contiguous(memory_format=torch.channels_last), []
        x = self.stem[0](x)
        for halved in self.stem[1:]:
            kept.append(x)
            x = halved(x)
        x = self._attended(x, e, ports)
        for rise in self.head:
            x = rise(x, kept.pop(), e)
        out: Tensor = self.final(tf.silu(self.norm_final(x)))
        return out.contiguous()

    def _attended(
        self, x: Float[Tensor, "b width h w"], e: Float[Tensor, "#b width"], ports: Ports
    ) -> Float[Tensor, "b width h w"]:
        b, width, h, w = x.shape
        tokens = x.permute(0, 2, 3, 1).reshape(b, h * w, width) + self.pos_embed  # a view of a channels-last map
        for block in self.blocks:
            tokens = block(tokens, e, ports)
        return tokens.view(b, h, w, width).permute(0, 3, 1, 2)


def _conv(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1)


def _zero(*modules: nn.Module) -> None:
    for module in modules:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
