"""timm's models as feature networks, with weights from a file and the preprocessing that timm records for them."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from components.errors import ConfigError
from components.metrics.networks.base import Frozen, Identity, Seen
from components.metrics.networks.config import ClipNetwork, DinoV2Network, TimmNetwork
from components.nn.vit import seeded_init
from components.weights import assign, fetch_weights
from components.weights_file import WeightsFile

DINOV2, DINOV2_PX = "vit_large_patch14_dinov2.lvd142m", 224
CLIP = "vit_large_patch14_clip_336.openai"
_WHERE = "the network's weights"


class TimmFeatures(Frozen):
    """Pooled features of the model, before its classifier; with `token`, the [CLS] token alone."""

    def __init__(
        self, module: nn.Module, identity: Identity, *, px: int, mean: Any, std: Any, token: bool = False
    ) -> None:
        super().__init__(module, identity)
        self.px, self.mean, self.std, self.token = px, mean, std, token

    def see(self, x: Tensor) -> Seen:
        module: Any = self.module
        x = x / 255
        if x.shape[-2:] != (self.px, self.px):
            x = interpolate(x, (self.px, self.px), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        x = (x - x.new_tensor(self.mean)[:, None, None]) / x.new_tensor(self.std)[:, None, None]
        features: Tensor = module.forward_features(x)[:, 0] if self.token else module(x)
        return Seen(features.float().flatten(1).cpu().numpy())


def load(config: TimmNetwork) -> TimmFeatures:
    """Raises: WeightsError, ConfigError for a model that timm does not know."""
    import timm

    if not timm.is_model(config.name):
        near = timm.list_models(f"*{config.name.split('_')[0]}*")[:5]
        raise ConfigError(f"timm has no model {config.name!r}", expected=f"a name from timm.list_models(), e.g. {near}")
    known = timm.get_pretrained_cfg(config.name)
    if known is None:
        raise ConfigError(f"timm records no image statistics for {config.name}", fix="name another model")
    return _load("timm", config.name, config.weights, px=config.input_px or known.input_size[-1], outputs=0)


def load_dinov2(config: DinoV2Network) -> TimmFeatures:
    """At 224 pixels, where positions are stretched, and of the [CLS] token. Raises: WeightsError."""
    return _load("dinov2", DINOV2, config.weights, px=DINOV2_PX, outputs=0, token=True)


def load_clip(config: ClipNetwork) -> TimmFeatures:
    """The projected embedding, which is timm's classifier of this model. Raises: WeightsError."""
    return _load("clip", CLIP, config.weights, px=336, outputs=768)


def _load(kind: str, name: str, file: WeightsFile, *, px: int, outputs: int, token: bool = False) -> TimmFeatures:
    import timm

    known: Any = timm.get_pretrained_cfg(name)
    sized: dict[str, Any] = {"img_size": px} if known.fixed_input_size else {}
    with seeded_init(0):
        module = timm.create_model(name, pretrained=False, num_classes=outputs, **sized)
    tensors = fetch_weights(file, f"timm {name}", _WHERE)
    if not outputs:
        tensors = _without_classifier(tensors, known.classifier)
    assign(module, _resampled(tensors, module), source=file.uri)
    resize = f"bicubic with antialias to {px}, mean {known.mean}, std {known.std}"
    identity = Identity(kind, name, file.sha256.lower(), resize)
    return TimmFeatures(module, identity, px=px, mean=known.mean, std=known.std, token=token)


def _without_classifier(tensors: dict[str, Tensor], classifier: str | tuple[str, ...] | None) -> dict[str, Tensor]:
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    dropped = tuple(f"{layer}." for layer in layers)
    return {name: tensor for name, tensor in tensors.items() if not (dropped and name.startswith(dropped))}


def _resampled(tensors: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Positions on the model's own grid, as timm stretches them."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    own, given = getattr(module, "pos_embed", None), tensors.get("pos_embed")
    if own is None or given is None or given.ndim != 3 or own.shape == given.shape:
        return tensors
    net: Any = module
    n_prefix = 0 if net.no_embed_class else net.num_prefix_tokens
    if round((given.shape[1] - n_prefix) ** 0.5) ** 2 != given.shape[1] - n_prefix:
        return tensors  # not a square grid: reported as a wrong shape
    grid = [int(side) for side in net.patch_embed.grid_size]
    stretched: Tensor = resample_abs_pos_embed(given, new_size=grid, num_prefix_tokens=n_prefix)
    return {**tensors, "pos_embed": stretched}
