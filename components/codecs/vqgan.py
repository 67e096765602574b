"""VQGAN with the MaskGIT architecture: images <-> a grid of codebook entries.

Paper: 2012.09841 (VQGAN), 2202.04200 (MaskGIT). Parameter names are those of the published JAX conversion.
z_e: encoder output, z_q: its nearest codebook vectors.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as tf

from components.codecs.base import Codec
from components.codecs.config import VqganConfig
from components.target import TargetSpec


class ResBlock(nn.Module):
    """GroupNorm, swish, conv; twice; plus a shortcut.

    Differs: with shortcut "branch" a block that changes channels returns nin(h) + h of its own branch h, and its input
    is dropped: a slip of the published code that its weights depend on.
    """

    def __init__(self, c_in: int, c_out: int, config: VqganConfig) -> None:
        super().__init__()
        self.norm1 = _norm(c_in, config)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.norm2 = _norm(c_out, config)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.reads_branch = config.shortcut == "branch"
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_out if self.reads_branch else c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv1(tf.silu(self.norm1(x)))
        h = self.conv2(tf.silu(self.norm2(h)))
        if not hasattr(self, "nin_shortcut"):
            return x + h
        out: Tensor = self.nin_shortcut(h if self.reads_branch else x) + h
        return out


class Encoder(nn.Module):
    """Image -> (b, code_dim, side, side); 2x2 average pooling between levels."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(3, config.width, 3, padding=1, bias=False)
        self.down = nn.ModuleList(
            _level(c_in, c_out, config) for c_in, c_out in zip([config.width, *widths], widths, strict=False)
        )
        self.mid = _mid(widths[-1], config)
        self.norm_out = _norm(widths[-1], config)
        self.conv_out = nn.Conv2d(widths[-1], config.code_dim, 1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d s s"]:
        h = self.conv_in(x.contiguous(memory_format=torch.channels_last))  # on CPU nearly twice as fast
        for i, level in enumerate(self.down):
            h = tf.avg_pool2d(h, 2) if i else h
            for block in level["block"]:  # type: ignore[index]
                h = block(h)
        for block in self.mid.values():
            h = block(h)
        out: Tensor = self.conv_out(tf.silu(self.norm_out(h)))
        return out


class Decoder(nn.Module):
    """(b, code_dim, side, side) -> image, not clamped; nearest x2 and a conv between levels, up.0 the finest."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(config.code_dim, widths[-1], 3, padding=1)
        self.mid = _mid(widths[-1], config)
        self.up = nn.ModuleList(
            _level(c_in, c_out, config, upsample=i > 0)
            for i, (c_in, c_out) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.norm_out = _norm(widths[0], config)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Float[Tensor, "b d s s"]) -> Float[Tensor, "b 3 h w"]:
        h = self.conv_in(z.contiguous(memory_format=torch.channels_last))
        for block in self.mid.values():
            h = block(h)
        for i in reversed(range(len(self.up))):
            level = self.up[i]
            for block in level["block"]:  # type: ignore[index]
                h = block(h)
            if i:
                h = level["upsample"]["conv"](tf.interpolate(h, scale_factor=2.0, mode="nearest"))  # type: ignore[index]
        out: Tensor = self.conv_out(tf.silu(self.norm_out(h)))
        return out


class Codebook(nn.Module):
    """The entries, and the nearest one in L2."""

    def __init__(self, n_codes: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_codes, dim)
        nn.init.uniform_(self.embedding.weight, -1 / n_codes, 1 / n_codes)

    def nearest(self, z_e: Float[Tensor, "b d h w"]) -> Int[Tensor, "b h w"]:
        codes = self.embedding.weight
        flat = z_e.permute(0, 2, 3, 1)  # (b, h, w, d)
        distances = codes.square().sum(1) - 2 * flat @ codes.T  # |z_e|^2 is the same for every code
        return distances.argmin(-1)

    def forward(self, index: Int[Tensor, "b h w"]) -> Float[Tensor, "b d h w"]:
        vectors: Tensor = self.embedding(index)
        return vectors.permute(0, 3, 1, 2)


class Vqgan(Codec):
    """The tokenizer. Works in [0, 1], not [-1, 1]; no quant_conv, no attention."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        tokens = config.space == "tokens"
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codebook(config.n_codes, config.code_dim)
        self.spec = TargetSpec(
            space=config.space,
            shape=(config.side, config.side) if tokens else (config.code_dim, config.side, config.side),
            dtype="int32" if tokens else "float16",
            n_codes=config.n_codes if tokens else None,
            image_px=config.px,
        )

    def encode(self, images: Float[Tensor, "b 3 px px"]) -> Tensor:
        self.check_images(images)
        z_e = self.in_groups(self.encoder, images)
        if self.spec.space == "tokens":
            return self.quantize.nearest(z_e).to(torch.int32)
        return z_e.to(torch.float16)

    def decode(self, target: Tensor) -> Float[Tensor, "b 3 px px"]:
        self.check_target(target)
        tokens = self.spec.space == "tokens"
        index = target.long() if tokens else self.quantize.nearest(target.to(torch.float32))
        return self.in_groups(self.decoder, self.quantize(index)).clamp(0, 1)


def _norm(channels: int, config: VqganConfig) -> nn.GroupNorm:
    return nn.GroupNorm(config.groups, channels, eps=1e-6)


def _mid(channels: int, config: VqganConfig) -> nn.ModuleDict:
    return nn.ModuleDict({f"block_{i}": ResBlock(channels, channels, config) for i in (1, 2)})


def _level(c_in: int, c_out: int, config: VqganConfig, *, upsample: bool = False) -> nn.ModuleDict:
    blocks = (ResBlock(c_out if i else c_in, c_out, config) for i in range(config.n_blocks))
    level = nn.ModuleDict({"block": nn.ModuleList(blocks)})
    if upsample:
        level["upsample"] = nn.ModuleDict({"conv": nn.Conv2d(c_out, c_out, 3, padding=1)})
    return level
