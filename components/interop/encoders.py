"""Published encoders' files: MoCo v3, DINO, iBOT and DeiT; and importing any encoder that a config names."""

from typing import Any, ClassVar

from torch import Tensor

from components.encoders import timm
from components.encoders.base import WEIGHTS_KEY, FrozenEncoder
from components.encoders.config import EncoderModel, TimmConfig
from components.interop.clip import ClipLayout
from components.interop.layout import SameNames, Tensors, adopt, depth_of, heads_of, side_of
from components.weights import framed, required

_MISSPELT = {"norm13": "norm1", "fc13": "fc1", "norm14": "norm2", "fc14": "fc2"}  # in the published ViT-L file
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VitLayout(SameNames):
    """timm's names, some prefixed by the training framework."""

    unread: ClassVar[tuple[str, ...]] = ("masked_embed",)

    def __init__(self, *, headless: bool = False) -> None:
        self.headless = headless

    def plain(self, tensors: Tensors) -> dict[str, Tensor]:
        return framed(tensors)

    def tolerates(self, name: str) -> bool:
        return super().tolerates(name) or (self.headless and name.startswith("head."))

    def shape(self, tensors: Tensors) -> dict[str, Any]:
        """The backbone's part of the facts."""
        width, patch = side_of(tensors, "patch_embed.proj.weight", 0), side_of(tensors, "patch_embed.proj.weight", 2)
        return {
            "kind": self.kind,
            "input_px": patch * round((side_of(tensors, "pos_embed", 1) - 1) ** 0.5),
            "patch_px": patch,
            "width": width,
            "depth": depth_of(tensors, "blocks."),
            "heads": heads_of(width, _HEADS),
            "mlp_ratio": side_of(tensors, "blocks.0.mlp.fc1.weight", 0) / width,
            "output": "projector",
            "mean": list(_MEAN),
            "std": list(_STD),
        }


class MoCoV3Layout(VitLayout):
    """Query encoder, momentum encoder and predictor; only the first is used, the misspelt ViT-L names are mended."""

    kind = "mocov3"

    def plain(self, tensors: Tensors) -> dict[str, Tensor]:
        return {_mended(name): tensor for name, tensor in framed(tensors).items()}

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        shape = self.shape(tensors)
        return {
            **shape,
            "heads": heads_of(shape["width"], _HEADS | {384: 12}),
            "projector_hidden": side_of(tensors, "head.0.weight", 0),
            "projector_dim": side_of(tensors, "head.6.weight", 0),
            "freeze_patches": True,
        }


class DinoLayout(VitLayout):
    """The teacher, or its backbone alone; the last layer of the head, weight-normalized or not, is kept aside."""

    kind = "dino"
    unread = ("head.last_layer", "head.mlp2.", "masked_embed")

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        if "head.mlp.0.weight" not in tensors:
            return {**self.shape(tensors), "output": "cls", "head_hidden": 2048, "bottleneck": 256}
        head = {"head_hidden": side_of(tensors, "head.mlp.0.weight", 0)}
        return {**self.shape(tensors), **head, "bottleneck": side_of(tensors, "head.mlp.4.weight", 0)}


class IbotLayout(DinoLayout):
    """As DINO, with a second last layer for the patches; files whose head was cut off look like DINO's."""

    kind = "ibot"
    others = ("dino",)


class DeitLayout(VitLayout):
    """The classifier is the head. A MoCo v3 ViT after linear probing looks the same, and is imported as this."""

    kind = "deit"

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        return {**self.shape(tensors), "n_classes": side_of(tensors, "head.weight", 0), "output": "cls"}


LAYOUTS: tuple[VitLayout | ClipLayout, ...] = (ClipLayout(), MoCoV3Layout(), DinoLayout(), IbotLayout(), DeitLayout())


def _mended(name: str) -> str:
    return ".".join(_MISSPELT.get(part, part) for part in name.split("."))


def import_encoder(config: EncoderModel) -> tuple[FrozenEncoder, dict[str, Tensor]]:
    """The encoder with the weights that its config names, and what is kept of their file.

    Raises: WeightsError, ConfigError.
    """
    if isinstance(config, TimmConfig):
        return timm.imported(config), {}
    encoder = config.build()
    layout = next(layout for layout in LAYOUTS if layout.kind == config.kind)
    headless = not any(name.startswith("head.") for name in encoder.network.state_dict())
    fitting = type(layout)(headless=headless)
    kept = adopt(encoder.network, required(config.weights, WEIGHTS_KEY), (fitting,), where=WEIGHTS_KEY)
    return encoder, kept
