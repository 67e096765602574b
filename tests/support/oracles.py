"""The published encoders and codecs again, from their descriptions: float64, tensors by published name, no nn.

Nothing here imports the code under test. Slow and explicit on purpose.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def doubles(tensors: Weights) -> dict[str, Tensor]:
    return {name: t.double() for name, t in tensors.items()}


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    out = x @ w[f"{name}.weight"].T
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out


def layer_norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    scaled = centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def softmax(x: Tensor) -> Tensor:
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def group_norm(w: Weights, name: str, x: Tensor, groups: int, eps: float = 1e-6) -> Tensor:
    grouped = x.reshape(len(x), groups, -1)
    centered = grouped - grouped.mean(2, keepdim=True)
    scaled = (centered / (centered.square().mean(2, keepdim=True) + eps).sqrt()).reshape(x.shape)
    return scaled * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def conv(w: Weights, name: str, x: Tensor, stride: int = 1, pad: tuple[int, int, int, int] | None = None) -> Tensor:
    """By shifted products. `pad`: left, right, top, bottom; half the kernel if None."""
    weight = w[f"{name}.weight"]
    k = weight.shape[2]
    left, right, top, bottom = pad or (k // 2,) * 4
    b, c, h, width = x.shape
    padded = x.new_zeros(b, c, h + top + bottom, width + left + right)
    padded[:, :, top : top + h, left : left + width] = x
    rows, columns = (padded.shape[2] - k) // stride + 1, (padded.shape[3] - k) // stride + 1
    out = x.new_zeros(b, weight.shape[0], rows, columns)
    for i in range(k):
        for j in range(k):
            window = padded[:, :, i : i + rows * stride : stride, j : j + columns * stride : stride]
            out += torch.einsum("bchw,oc->bohw", window[:, :, :rows, :columns], weight[:, :, i, j])
    bias = w.get(f"{name}.bias")
    return out if bias is None else out + bias[:, None, None]


def swish(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halved(x: Tensor) -> Tensor:
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def vit_cls(w: Weights, x: Tensor, heads: int, depth: int) -> Tensor:
    """[CLS] after the final norm; x normalized, already of the input size."""
    patch = w["patch_embed.proj.weight"].shape[2]
    tokens = conv(w, "patch_embed.proj", x, stride=patch, pad=(0, 0, 0, 0)).flatten(2).transpose(1, 2)
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), tokens], 1) + w["pos_embed"]
    for i in range(depth):
        name = f"blocks.{i}"
        width = x.shape[2]
        qkv = linear(w, f"{name}.attn.qkv", layer_norm(w, f"{name}.norm1", x, 1e-6))
        q, k, v = qkv.split(width, dim=2)
        mixed = torch.empty_like(x)
        d = width // heads
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            weights = softmax(q[:, :, part] @ k[:, :, part].transpose(1, 2) / math.sqrt(d))
            mixed[:, :, part] = weights @ v[:, :, part]
        x = x + linear(w, f"{name}.attn.proj", mixed)
        hidden = gelu(linear(w, f"{name}.mlp.fc1", layer_norm(w, f"{name}.norm2", x, 1e-6)))
        x = x + linear(w, f"{name}.mlp.fc2", hidden)
    return layer_norm(w, "norm", x, 1e-6)[:, 0]


def moco_head(w: Weights, x: Tensor) -> Tensor:
    for i in (0, 3, 6):
        x = linear(w, f"head.{i}", x)
        norm = f"head.{i + 1}"
        x = (x - w[f"{norm}.running_mean"]) / (w[f"{norm}.running_var"] + 1e-5).sqrt()
        if i < 6:
            x = (x * w[f"{norm}.weight"] + w[f"{norm}.bias"]).clamp(min=0)
    return x


def dino_head(w: Weights, x: Tensor) -> Tensor:
    x = gelu(linear(w, "head.mlp.0", x))
    return linear(w, "head.mlp.4", gelu(linear(w, "head.mlp.2", x)))


def standardized(z: Tensor) -> Tensor:
    centered = z - z.mean(1, keepdim=True)
    return centered / (centered.square().sum(1, keepdim=True) / (z.shape[1] - 1)).sqrt()


def bicubic(x: Tensor, size: int) -> Tensor:
    """align_corners False, a = -0.75, edges repeated, no antialias: each axis in turn."""

    def weight(t: float) -> float:
        t, a = abs(t), -0.75
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    for axis in (2, 3):
        n = x.shape[axis]
        matrix = torch.zeros(size, n, dtype=x.dtype)
        for i in range(size):
            at = (i + 0.5) * n / size - 0.5
            for k in range(math.floor(at) - 1, math.floor(at) + 3):
                matrix[i, min(max(k, 0), n - 1)] += weight(at - k)
        x = torch.einsum("in,bcnw->bciw", matrix, x) if axis == 2 else torch.einsum("in,bchn->bchi", matrix, x)
    return x


def _vqgan_block(w: Weights, name: str, x: Tensor, groups: int) -> Tensor:
    """Where channels change, the shortcut reads the branch and the input is dropped."""
    h = conv(w, f"{name}.conv1", swish(group_norm(w, f"{name}.norm1", x, groups)))
    h = conv(w, f"{name}.conv2", swish(group_norm(w, f"{name}.norm2", h, groups)))
    return conv(w, f"{name}.nin_shortcut", h) + h if f"{name}.nin_shortcut.weight" in w else x + h


def vqgan_encode(w: Weights, x: Tensor, levels: int, blocks: int, groups: int) -> Tensor:
    """Images in [0, 1] to the continuous output."""
    h = conv(w, "encoder.conv_in", x)
    for i in range(levels):
        for j in range(blocks):
            h = _vqgan_block(w, f"encoder.down.{i}.block.{j}", h, groups)
        h = halved(h) if i < levels - 1 else h
    for j in (1, 2):
        h = _vqgan_block(w, f"encoder.mid.block_{j}", h, groups)
    return conv(w, "encoder.conv_out", swish(group_norm(w, "encoder.norm_out", h, groups)))


def nearest_codes(codes: Tensor, z: Tensor) -> Tensor:
    """Raster order; every distance written out."""
    flat = z.permute(0, 2, 3, 1).reshape(-1, 1, z.shape[1])
    return (flat - codes[None]).square().sum(2).argmin(1).view(len(z), *z.shape[2:])


def vqgan_decode(w: Weights, index: Tensor, levels: int, blocks: int, groups: int) -> Tensor:
    """Token ids to images, not clamped."""
    h = conv(w, "decoder.conv_in", w["quantize.embedding.weight"][index].permute(0, 3, 1, 2))
    for j in (1, 2):
        h = _vqgan_block(w, f"decoder.mid.block_{j}", h, groups)
    for i in reversed(range(levels)):
        for j in range(blocks):
            h = _vqgan_block(w, f"decoder.up.{i}.block.{j}", h, groups)
        h = conv(w, f"decoder.up.{i}.upsample.conv", doubled(h)) if i else h
    return conv(w, "decoder.conv_out", swish(group_norm(w, "decoder.norm_out", h, groups)))


def _block(w: Weights, name: str, x: Tensor, groups: int) -> Tensor:
    h = conv(w, f"{name}.conv1", swish(group_norm(w, f"{name}.norm1", x, groups)))
    h = conv(w, f"{name}.conv2", swish(group_norm(w, f"{name}.norm2", h, groups)))
    return (conv(w, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in w else x) + h


def _attention(w: Weights, name: str, x: Tensor, groups: int) -> Tensor:
    h = group_norm(w, f"{name}.norm", x, groups)
    q, k, v = (conv(w, f"{name}.{part}", h).flatten(2) for part in "qkv")  # (b, c, n)
    weights = softmax(q.transpose(1, 2) @ k / math.sqrt(x.shape[1]))
    return x + conv(w, f"{name}.proj_out", (v @ weights.transpose(1, 2)).view(x.shape))


def _levels(w: Weights, name: str, h: Tensor, blocks: int, groups: int) -> Tensor:
    for j in range(blocks):
        h = _block(w, f"{name}.block.{j}", h, groups)
        h = _attention(w, f"{name}.attn.{j}", h, groups) if f"{name}.attn.{j}.q.weight" in w else h
    return h


def _middle(w: Weights, name: str, h: Tensor, groups: int) -> Tensor:
    h = _attention(w, f"{name}.attn_1", _block(w, f"{name}.block_1", h, groups), groups)
    return _block(w, f"{name}.block_2", h, groups)


def ldm_encode(w: Weights, x: Tensor, levels: int, blocks: int, groups: int) -> Tensor:
    """Images in [-1, 1] through encoder and quant_conv: CompVis's autoencoder."""
    h = conv(w, "encoder.conv_in", x)
    for i in range(levels):
        h = _levels(w, f"encoder.down.{i}", h, blocks, groups)
        h = conv(w, f"encoder.down.{i}.downsample.conv", h, stride=2, pad=(0, 1, 0, 1)) if i < levels - 1 else h
    h = _middle(w, "encoder.mid", h, groups)
    return conv(w, "quant_conv", conv(w, "encoder.conv_out", swish(group_norm(w, "encoder.norm_out", h, groups))))


def ldm_decode(w: Weights, z: Tensor, levels: int, blocks: int, groups: int) -> Tensor:
    """Latents to images around [-1, 1]."""
    h = _middle(w, "decoder.mid", conv(w, "decoder.conv_in", conv(w, "post_quant_conv", z)), groups)
    for i in reversed(range(levels)):
        h = _levels(w, f"decoder.up.{i}", h, blocks + 1, groups)
        h = conv(w, f"decoder.up.{i}.upsample.conv", doubled(h)) if i else h
    return conv(w, "decoder.conv_out", swish(group_norm(w, "decoder.norm_out", h, groups)))
