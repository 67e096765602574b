"""Distances between pictures in the features of a frozen network: what looks alike, not what is equal pixel by pixel.

Paper: 1801.03924 (LPIPS). Differs: every channel counts alike, as nobody has judged the pairs of one's own pictures.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as tf

from components.codecs.config import PerceptualConfig, TimmFeatures, VitFeatures
from components.errors import ConfigError
from components.nn.vit import VisionTransformer, seeded_init
from components.weights import assign, fetch_weights, framed

WEIGHTS_KEY = "codec.objective.perceptual.weights"
_EPS = 1e-10


def build(config: PerceptualConfig) -> "Perceptual":
    """The distance, with the weights that the config names. Raises: WeightsError, ConfigError."""
    return _of_vit(config) if isinstance(config, VitFeatures) else _of_timm(config)


def _of_vit(config: VitFeatures) -> "Perceptual":
    tensors = _backbone(fetch_weights(config.weights, "the perceptual ViT", WEIGHTS_KEY))
    with seeded_init(0):
        network = _vit(tensors, config.heads)
    assign(network, tensors, source=config.weights.uri)
    last = len(network.blocks) - 1
    if bad := [layer for layer in config.layers if not 0 <= layer <= last]:
        fix = "set codec.objective.perceptual.layers"
        raise ConfigError("the perceptual ViT has no such block", got=bad[0], expected=f"0..{last}", fix=fix)
    return Perceptual(config, VitMaps(network, config.layers))


def _of_timm(config: TimmFeatures) -> "Perceptual":
    tensors = fetch_weights(config.weights, f"timm {config.name}", WEIGHTS_KEY)
    with seeded_init(0):
        network = _timm(config.name, config.layers)
    own = network.state_dict()
    fitting = {name: t for name, t in tensors.items() if name in own}  # the head is not needed
    assign(network, fitting, source=config.weights.uri)
    return Perceptual(config, network)


class Perceptual(nn.Module):
    """Mean squared distance of unit feature vectors, summed over layers. Frozen; gradients reach the images alone."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: VitFeatures | TimmFeatures, network: nn.Module) -> None:
        super().__init__()
        self.weight = config.weight
        self.network = network.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        self.train(False)

    def forward(self, images: Float[Tensor, "b 3 h w"], others: Float[Tensor, "b 3 h w"]) -> Tensor:
        with torch.no_grad():
            wanted = self._unit(images)
        total = images.new_zeros(())
        for a, b in zip(self._unit(others), wanted, strict=True):
            total = total + (a - b).square().sum(1).mean()
        return total

    def _unit(self, images: Tensor) -> list[Tensor]:
        maps = self.network((images - self.mean) / self.std)
        return [m / (m.square().sum(1, keepdim=True) + _EPS).sqrt() for m in maps]

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        return super().train(False)


class VitMaps(nn.Module):
    """Tokens after some blocks, without [CLS]. Shapes: (b, 3, h, w) -> (b, width, n) each."""

    def __init__(self, vit: VisionTransformer, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.vit, self.layers = vit, layers
        self.px = vit.patch_embed.side * vit.patch_embed.proj.kernel_size[0]

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        if x.shape[-2:] != (self.px, self.px):
            x = tf.interpolate(x, (self.px, self.px), mode="bicubic", align_corners=False)
        tokens = torch.cat([self.vit.cls_token.expand(len(x), -1, -1), self.vit.patch_embed(x)], 1)
        tokens, maps = tokens + self.vit.pos_embed, []
        for i, block in enumerate(self.vit.blocks):
            tokens = block(tokens)
            if i in self.layers:
                maps.append(tokens[:, 1:].transpose(1, 2))
        return maps


def _backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without heads and other networks."""
    return {name: t for name, t in framed(tensors).items() if not name.startswith(("head.", "masked_embed"))}


def _vit(tensors: Mapping[str, Tensor], heads: int) -> VisionTransformer:
    try:
        width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
        side = math.isqrt(tensors["pos_embed"].shape[1] - 1)
        hidden = tensors["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise ConfigError(
            "the perceptual network's file is no ViT with timm's names",
            got=error,
            fix="set codec.objective.perceptual.kind: timm, or name another file",
        ) from error
    depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    return VisionTransformer(
        input_px=side * patch,
        patch_px=patch,
        dim=width,
        depth=depth,
        heads=heads,
        mlp_ratio=hidden / width,
        freeze_patches=False,
    )


def _timm(name: str, layers: tuple[int, ...]) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r}", expected="a name from timm.list_models()")
    options: dict[str, Any] = {"features_only": True, "out_indices": layers}
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError, IndexError) as error:
        fix = "choose another network or other codec.objective.perceptual.layers"
        raise ConfigError(f"timm gives no such features of {name}", got=error, fix=fix) from error
    return network
