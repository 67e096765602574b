"""Any timm model as the encoder, with weights from a file. Nothing is fetched from a hub."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from components.encoders.base import WEIGHTS_KEY, FrozenEncoder
from components.encoders.config import TimmConfig
from components.errors import ConfigError
from components.nn.vit import seeded_init
from components.weights import assign, fetch_weights, framed, required
from components.weights_file import WeightsFile


class TimmEncoder(FrozenEncoder):
    """Reads the configured output of a timm model."""

    def __init__(self, config: TimmConfig, network: nn.Module) -> None:
        super().__init__(network, dim=config.dim, input_px=config.input_px, mean=config.mean, std=config.std)
        self.config = config

    def represent(self, x: Float[Tensor, "b 3 px px"]) -> Float[Tensor, "b dim"]:
        network: Any = self.network
        if self.config.output == "head":
            out: Tensor = network(x)
            return out
        features: Tensor = network.forward_features(x)
        if self.config.output == "pooled":
            pooled: Tensor = network.forward_head(features, pre_logits=True)
            return pooled
        return features[:, 0]


def build(config: TimmConfig) -> FrozenEncoder:
    """The encoder, with fresh weights. Raises: ConfigError for a name that timm does not know."""
    with seeded_init(0):
        network = _create(config)
    return TimmEncoder(config, network)


def imported(config: TimmConfig) -> FrozenEncoder:
    """The encoder with the weights that the config names. Raises: WeightsError, ConfigError."""
    weights = required(config.weights, WEIGHTS_KEY)
    encoder = build(config)
    tensors = framed(fetch_weights(weights, f"timm {config.name}", WEIGHTS_KEY))
    if config.output != "head":
        tensors = _without_classifier(tensors, encoder.network)
    if config.resample_positions:
        tensors = _resampled(tensors, encoder.network)
    assign(encoder.network, tensors, source=weights.uri)
    _try(encoder)
    return encoder


def described(name: str, weights: WeightsFile) -> TimmConfig:
    """What imports a file of this timm model: its own size, width and image statistics, [CLS] where it has one.

    Raises: ConfigError for a name that timm does not know.
    """
    import timm

    _check_known(name)
    with torch.device("meta"):
        network: Any = timm.create_model(name, pretrained=False, num_classes=0)
    known: Any = network.pretrained_cfg
    with_cls = getattr(network, "cls_token", None) is not None
    width = network.num_features if with_cls else getattr(network, "head_hidden_size", network.num_features)
    return TimmConfig(
        kind="timm",
        name=name,
        weights=weights,
        input_px=known["input_size"][-1],
        dim=width,
        output="cls" if with_cls else "pooled",
        resample_positions=False,
        mean=known["mean"],
        std=known["std"],
    )


def _check_known(name: str) -> None:
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_', maxsplit=1)[0]}*")[:5]
        raise ConfigError(f"timm has no model {name!r}", expected=f"a name from timm.list_models(), e.g. {near}")


def _create(config: TimmConfig) -> nn.Module:
    import timm

    _check_known(config.name)
    n_outputs = config.dim if config.output == "head" else 0
    known = timm.get_pretrained_cfg(config.name)
    sized: dict[str, Any] = {"img_size": config.input_px} if known is not None and known.fixed_input_size else {}
    try:
        network: nn.Module = timm.create_model(config.name, pretrained=False, num_classes=n_outputs, **sized)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"timm cannot build {config.name}", got=error, fix="check encoder.model.name, .input_px and .dim"
        ) from error
    if config.output == "cls" and getattr(network, "cls_token", None) is None:
        raise ConfigError(
            f"{config.name} has no [CLS] token", got="output: cls", fix="set encoder.model.output: pooled"
        )
    return network


def _try(encoder: FrozenEncoder) -> None:
    """One image through the network. Raises: ConfigError when size or width does not suit it."""
    try:
        encoder.raw(torch.zeros(1, 3, encoder.input_px, encoder.input_px))
    except (AssertionError, RuntimeError, IndexError, ValueError) as error:
        got, fix = f"{encoder.input_px} px: {error}", "set encoder.model.input_px to a size that the model accepts"
        raise ConfigError("the timm model does not run at this size", got=got, fix=fix) from error


def _resampled(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Positions on the model's own grid: bicubic, antialiased, as timm does it. Others as they are."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    own, given = getattr(network, "pos_embed", None), tensors.get("pos_embed")
    if own is None or given is None or given.ndim != 3 or own.shape == given.shape:
        return dict(tensors)
    net: Any = network
    n_prefix = 0 if net.no_embed_class else net.num_prefix_tokens
    if math.isqrt(given.shape[1] - n_prefix) ** 2 != given.shape[1] - n_prefix:
        return dict(tensors)  # not a square grid: reported as a wrong shape
    grid = [int(side) for side in net.patch_embed.grid_size]
    stretched: Tensor = resample_abs_pos_embed(given, new_size=grid, num_prefix_tokens=n_prefix)
    return {**tensors, "pos_embed": stretched}


def _without_classifier(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Drop the classification layer, which a model built without one does not have."""
    known: Any = getattr(network, "pretrained_cfg", {})
    named = known.get("classifier") or ()
    layers = (named,) if isinstance(named, str) else tuple(named)
    dropped = tuple(f"{layer}." for layer in layers)
    return {name: tensor for name, tensor in tensors.items() if not (dropped and name.startswith(dropped))}
