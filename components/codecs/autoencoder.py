"""The convolutional autoencoder of latent diffusion: what `kl` and `vq-f8` share. Parameter names are CompVis's.

Paper: 2112.10752 (LDM), 2012.09841 (VQGAN). Works in [-1, 1].
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as tf

from components.codecs.config import AutoencoderConfig


class ResBlock(nn.Module):
    """GroupNorm, swish, conv; twice; added to the input, through a 1x1 convolution where channels change."""

    def __init__(self, c_in: int, c_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in, eps=1e-6)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, c_out, eps=1e-6)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv1(tf.silu(self.norm1(x)))
        h = self.conv2(tf.silu(self.norm2(h)))
        return (x if self.nin_shortcut is None else self.nin_shortcut(x)) + h


class AttentionBlock(nn.Module):
    """One head over all positions, added to the input; 1x1 convolutions project."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))  # (b, 1, n, c)
        mixed = tf.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        out: Tensor = x + self.proj_out(mixed.reshape(x.shape))
        return out


class Downsample(nn.Module):
    """Stride 2 over an image padded at the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(tf.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Nearest x2, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(tf.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """Residual blocks of one resolution, attention if the level has it, and the way to the next resolution."""

    def __init__(
        self, widths: tuple[int, int], n_blocks: int, groups: int, *, attends: bool, resample: dict[str, nn.Module]
    ) -> None:
        super().__init__()
        c_in, c_out = widths
        self.block = nn.ModuleList(ResBlock(c_out if i else c_in, c_out, groups) for i in range(n_blocks))
        self.attn = nn.ModuleList(AttentionBlock(c_out, groups) for _ in range(n_blocks if attends else 0))
        for name, module in resample.items():
            self.add_module(name, module)
        self.resample = tuple(resample)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            x = self.attn[i](x) if len(self.attn) else x
        for name in self.resample:
            x = getattr(self, name)(x)
        return x


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, groups)
        self.attn_1 = AttentionBlock(channels, groups)
        self.block_2 = ResBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Encoder(nn.Module):
    """Image in [-1, 1] -> (b, n_out, side, side)."""

    def __init__(self, config: AutoencoderConfig, n_out: int) -> None:
        super().__init__()
        widths, last = config.widths, len(config.widths) - 1
        self.conv_in = nn.Conv2d(3, config.width, 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                (c_in, c_out),
                config.n_blocks,
                config.groups,
                attends=i in config.attention_levels,
                resample={"downsample": Downsample(c_out)} if i < last else {},
            )
            for i, (c_in, c_out) in enumerate(zip([config.width, *widths], widths, strict=False))
        )
        self.mid = Middle(widths[-1], config.groups)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], n_out, 3, padding=1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n s s"]:
        h = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        for level in self.down:
            h = level(h)
        out: Tensor = self.conv_out(tf.silu(self.norm_out(self.mid(h))))
        return out


class Decoder(nn.Module):
    """(b, latent_dim, side, side) -> image around [-1, 1]; up.0 is the finest level."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = nn.Conv2d(config.latent_dim, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], config.groups)
        self.up = nn.ModuleList(
            Level(
                (c_in, c_out),
                config.n_blocks + 1,
                config.groups,
                attends=i in config.attention_levels,
                resample={"upsample": Upsample(c_out)} if i else {},
            )
            for i, (c_in, c_out) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.norm_out = nn.GroupNorm(config.groups, widths[0], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Float[Tensor, "b d s s"]) -> Float[Tensor, "b 3 h w"]:
        h = self.mid(self.conv_in(z.contiguous(memory_format=torch.channels_last)))
        for level in reversed(cast(list[Level], list(self.up))):
            h = level(h)
        out: Tensor = self.conv_out(tf.silu(self.norm_out(h)))
        return out
