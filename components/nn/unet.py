"""The UNet of ADM and of latent diffusion: one skeleton, two ways to resample, to use the time and to attend.

Paper: 2105.05233 (ADM), 2112.10752 (LDM). Parameter names are those of both papers' code, one to one.
e: the vector that modulates blocks (time, and in ADM the vector condition).
"""

from dataclasses import dataclass
from itertools import count
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as tf

from components.errors import ConfigError
from components.nn.dropout import RowDropout
from components.nn.spatial import ImageAttention, QkvOrder, SpatialTransformer
from components.nn.unit import Unit


@dataclass(frozen=True)
class UNetShape:
    """What the two families differ in, and their sizes. Raises: ConfigError for heads that do not split a level."""

    c_in: int
    """Channels of x, those of a spatial condition included."""
    c_out: int
    width: int
    """Channels that the multipliers multiply; also the number of sinusoids of the time."""
    multipliers: tuple[float, ...]
    n_blocks: int
    """Residual blocks per level on the way down; one more on the way up."""
    attention: tuple[int, ...]
    """Downsampling factors at which there is attention."""
    head_width: int | None
    """Channels per attention head; None: `heads` says how many there are, whatever the channels."""
    heads: int | None
    """Attention heads at every level; None: `head_width` says how wide they are."""
    groups: int
    """Groups of every GroupNorm."""
    family: Literal["adm", "ldm"]
    """adm: residual blocks resample, e scales and shifts the second norm. ldm: convolutions resample, e is added, and
    attention is a transformer that sees a context."""
    context_dim: int | None = None
    """Width of the rows that attention sees besides the image; needed by ldm."""
    one_key: bool = True
    """ldm: whether the context always has a length of one."""
    qkv_order: QkvOrder = "per_head"
    """adm: order of the rows of a qkv matrix."""

    @property
    def time_dim(self) -> int:
        return 4 * self.width

    def channels(self, multiplier: float) -> int:
        """Channels of a level."""
        return int(self.width * multiplier)

    def head_width_of(self, channels: int) -> int:
        """Channels per head where there are so many channels."""
        width = channels // self.heads if self.heads else self.head_width
        if not width or channels % width or (self.heads and channels != width * self.heads):
            heads = f"heads of width {self.head_width}" if self.heads is None else f"{self.heads} heads"
            raise ConfigError("channels do not split evenly over attention heads", got=f"{channels} channels, {heads}")
        return width


class UNet(nn.Module):
    """(x, e, context, mask) -> c_out channels of x's size. `context`: the rows that attention sees, besides the image.

    `dropout`: of what residual blocks hide, in training.
    Convolutions run channels-last: faster on CPU and GPU alike.
    """

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        self.shape = shape
        self.time_embed = nn.Sequential(
            nn.Linear(shape.width, shape.time_dim), nn.SiLU(), nn.Linear(shape.time_dim, shape.time_dim)
        )
        self.input_blocks, kept = way_down(shape)
        channels, factor = kept[-1], 2 ** (len(shape.multipliers) - 1)
        self.middle_block = middle(shape, channels)
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(shape.multipliers))):
            for i in range(shape.n_blocks + 1):
                layers = [_block(shape, channels + kept.pop(), shape.channels(multiplier))]
                channels = shape.channels(multiplier)
                layers += _attention(shape, channels, factor)
                if level and i == shape.n_blocks:
                    layers.append(_resample(shape, channels, "up"))
                    factor //= 2
                self.output_blocks.append(Stage(layers))
        self.out = nn.Sequential(_norm(shape, channels), nn.SiLU(), _zeroed(_conv(channels, shape.c_out)))

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        e: Float[Tensor, "#b e"],
        context: Float[Tensor, "b m context"] | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
        dropout: RowDropout | None = None,
    ) -> Float[Tensor, "b out h w"]:
        masks = (None if dropout is None else dropout.after(i * Stage.N_MASKS) for i in count())
        h = x.contiguous(memory_format=torch.channels_last)
        kept = []
        for stage in self.input_blocks:
            h = stage(h, e, context, mask, next(masks))
            kept.append(h)
        h = self.middle_block(h, e, context, mask, next(masks))
        for stage in self.output_blocks:
            h = stage(torch.cat([h, kept.pop()], 1), e, context, mask, next(masks))
        out: Tensor = self.out(h)
        return out.contiguous()


class Stage(Unit, nn.ModuleList):
    """Layers in a row; each gets what it takes of e, the context and the dropout."""

    N_MASKS = 2
    """Residual blocks of a stage at most, each with a mask of its own."""

    def forward(
        self,
        x: Tensor,
        e: Tensor,
        context: Tensor | None,
        mask: Tensor | None,
        dropout: RowDropout | None = None,
    ) -> Tensor:
        for i, layer in enumerate(self):
            if isinstance(layer, ResBlock):
                x = layer(x, e, None if dropout is None else dropout.after(min(i, 1)))
            elif isinstance(layer, ImageAttention | SpatialTransformer):
                x = layer(x, context, mask)
            else:
                x = layer(x)
        return x


class ResBlock(nn.Module):
    """Norm, SiLU, conv; e; norm, SiLU, dropout, zero-initialized conv; plus the input, through a 1x1 conv if channels
    change.

    In the adm family a block may resample: between activation and first conv, and on the skip. Index 2 of out_layers
    keeps the place of the dropout in the papers' files.
    """

    def __init__(self, shape: UNetShape, c_in: int, c_out: int, resample: Literal["up", "down"] | None = None) -> None:
        super().__init__()
        self.scale_shift, self.resample = shape.family == "adm", resample
        self.in_layers = nn.Sequential(_norm(shape, c_in), nn.SiLU(), _conv(c_in, c_out))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(shape.time_dim, c_out * (2 if self.scale_shift else 1)))
        self.out_layers = nn.Sequential(_norm(shape, c_out), nn.SiLU(), nn.Identity(), _zeroed(_conv(c_out, c_out)))
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], e: Float[Tensor, "#b e"], dropout: RowDropout | None = None
    ) -> Float[Tensor, "b d h2 w2"]:
        norm, act, conv = self.in_layers
        h = conv(self._resampled(act(norm(x))))
        added = self.emb_layers(e)[:, :, None, None]
        if self.scale_shift:
            scale, shift = added.chunk(2, dim=1)
            h = torch.addcmul(shift, self.out_layers[0](h), 1 + scale)
        else:
            h = self.out_layers[0](h + added)
        h = self.out_layers[1](h)
        h = self.out_layers[3](h if dropout is None else dropout(h, 1))
        out: Tensor = self.skip_connection(self._resampled(x)) + h
        return out

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return tf.interpolate(x, scale_factor=2.0, mode="nearest")
        return tf.avg_pool2d(x, 2) if self.resample == "down" else x


class Downsample(nn.Module):
    """A convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Nearest neighbor times 2, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(tf.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


def way_down(shape: UNetShape) -> tuple[nn.ModuleList, list[int]]:
    """The stages from the input to the smallest feature map, and the channels that each leaves."""
    channels = shape.channels(shape.multipliers[0])
    stages = nn.ModuleList([Stage([_conv(shape.c_in, channels)])])
    left, factor, last = [channels], 1, len(shape.multipliers) - 1
    for level, multiplier in enumerate(shape.multipliers):
        for _ in range(shape.n_blocks):
            layers = [_block(shape, channels, shape.channels(multiplier))]
            channels = shape.channels(multiplier)
            layers += _attention(shape, channels, factor)
            stages.append(Stage(layers))
            left.append(channels)
        if level != last:
            stages.append(Stage([_resample(shape, channels, "down")]))
            left.append(channels)
            factor *= 2
    return stages, left


def middle(shape: UNetShape, channels: int) -> Stage:
    """Residual block, attention, residual block."""
    return Stage([_block(shape, channels, channels), _attend(shape, channels), _block(shape, channels, channels)])


def _block(shape: UNetShape, c_in: int, c_out: int) -> nn.Module:
    return ResBlock(shape, c_in, c_out)


def _resample(shape: UNetShape, channels: int, way: Literal["up", "down"]) -> nn.Module:
    if shape.family == "adm":
        return ResBlock(shape, channels, channels, way)
    return Upsample(channels) if way == "up" else Downsample(channels)


def _attention(shape: UNetShape, channels: int, factor: int) -> list[nn.Module]:
    return [_attend(shape, channels)] if factor in shape.attention else []


def _attend(shape: UNetShape, channels: int) -> nn.Module:
    head_width = shape.head_width_of(channels)
    if shape.family == "adm":
        return ImageAttention(
            channels, head_width, shape.groups, order=shape.qkv_order, sequence_width=shape.context_dim
        )
    if shape.context_dim is None:
        raise ConfigError("an ldm UNet attends to a context", fix="say how wide it is")
    return SpatialTransformer(channels, head_width, shape.groups, shape.context_dim, one_key=shape.one_key)


def _norm(shape: UNetShape, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(shape.groups, channels, eps=1e-5)


def _conv(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1)


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv
