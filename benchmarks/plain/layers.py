"""Attention, transformer blocks and convolutional networks without fused kernels or channels-last."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as tf

from components.codecs.vqgan import Vqgan
from components.encoders.base import FrozenEncoder
from components.nn.attention import Attention


def attention(layer: Attention, x: Tensor, drop: float = 0.0) -> Tensor:
    """Weights of all pairs in memory, with the subtraction of their maximum."""
    b, n, dim = x.shape
    qkv = layer.qkv(x).reshape(b, n, 3, layer.heads, dim // layer.heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv[0], qkv[1], qkv[2]
    weights = (q.float() @ k.float().transpose(-2, -1)) * (dim // layer.heads) ** -0.5
    weights = weights - weights.max(-1, keepdim=True)[0]
    weights = tf.dropout(weights.softmax(-1), drop)
    out: Tensor = tf.dropout(layer.proj((weights @ v).transpose(1, 2).reshape(b, n, dim)), drop)
    return out


def block(layer: Any, x: Tensor, drop: float = 0.0) -> Tensor:
    x = x + attention(layer.attn, layer.norm1(x), drop)
    hidden = tf.dropout(tf.gelu(layer.mlp.fc1(layer.norm2(x))), drop)
    out: Tensor = x + tf.dropout(layer.mlp.fc2(hidden), drop)
    return out


@torch.no_grad()
def represent(encoder: FrozenEncoder, images: Tensor) -> Tensor:
    """Images in [0, 1] -> standardized representations; constants are made anew each time."""
    net: Any = encoder.network
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (encoder.mean, encoder.std))
    px = encoder.input_px
    x = tf.interpolate((images - mean) / std, (px, px), mode="bicubic", align_corners=False)
    x = torch.cat([net.cls_token.expand(len(x), -1, -1), net.patch_embed(x)], 1) + net.pos_embed
    for layer in net.blocks:
        x = block(layer, x)
    z = net.head(net.norm(x)[:, 0])
    out: Tensor = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)
    return out


def _res(layer: Any, x: Tensor) -> Tensor:
    h: Tensor = layer.conv1(tf.silu(layer.norm1(x)))
    h = layer.conv2(tf.silu(layer.norm2(h)))
    out: Tensor = layer.nin_shortcut(h) + h if hasattr(layer, "nin_shortcut") else x + h
    return out


@torch.no_grad()
def tokens(codec: Vqgan, images: Tensor) -> Tensor:
    """Images -> codebook indices."""
    net: Any = codec.encoder
    h = net.conv_in(images)
    for i, level in enumerate(net.down):
        h = tf.avg_pool2d(h, 2) if i else h
        for layer in level["block"]:
            h = _res(layer, h)
    for layer in net.mid.values():
        h = _res(layer, h)
    return codec.quantize.nearest(net.conv_out(tf.silu(net.norm_out(h))))


@torch.no_grad()
def pictures(codec: Vqgan, index: Tensor) -> Tensor:
    """Codebook indices -> images."""
    net: Any = codec.decoder
    h = net.conv_in(codec.quantize(index).contiguous())
    for layer in net.mid.values():
        h = _res(layer, h)
    for i in reversed(range(len(net.up))):
        for layer in net.up[i]["block"]:
            h = _res(layer, h)
        if i:
            h = net.up[i]["upsample"]["conv"](tf.interpolate(h, scale_factor=2.0, mode="nearest"))
    out: Tensor = net.conv_out(tf.silu(net.norm_out(h)))
    return out
