"""Files of ADM: its UNets of 64 to 512 pixels, with and without classes, RCG's with a representation, the upsamplers,
and the noise-aware classifiers. Paper: 2105.05233; what shapes do not tell: the flags of guided-diffusion @22e0df8.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from components.errors import WeightsError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.interop.diffusion import ANCESTRAL, ConditionedLayout, identity_scale
from components.interop.layout import Imported, Layout, Tensors, side_of
from components.interop.shadowed import square_target
from components.interop.unets import attention_levels, blocks_of_encoder, unet_sizes
from components.target import LOW_RES

_INPUT = "input_blocks.0.0.weight"
_LABELS, _CLASS = "label_emb.weight", "conditioner.class."
_REPRESENTATION = "conditioner.representation."
_POSITIONS = "out.2.positional_embedding"
_PUBLISHED_UPSAMPLING = 4


@dataclass(frozen=True)
class Published:
    """What shapes do not tell of a file."""

    side: int
    """Of the images."""
    head: Literal["width", "count"]
    """Attention heads: of 64 channels each, or 4 of them."""
    schedule: Literal["linear", "cosine"] = "linear"
    qkv_order: Literal["per_head", "stacked"] = "per_head"

    @property
    def facts(self) -> dict[str, Any]:
        """By the keys of the config."""
        heads = {"width": 64} if self.head == "width" else {"count": 4}
        return {"heads": heads, "schedule": {"kind": self.schedule, "n_times": 1000}}


_ADM_256 = Published(256, "width")
_PUBLISHED: dict[tuple[float, ...], Published] = {
    (192, 1, 2, 3, 4): Published(64, "width", "cosine", "stacked"),
    (256, 1, 1, 2, 3, 4): Published(128, "count"),
    (256, 0.5, 1, 1, 2, 2, 4, 4): Published(512, "width"),
}
"""By width and multipliers; any others are as ADM-256."""
_UPSAMPLERS = {3: Published(256, "count"), 2: Published(512, "width")}
"""By the number of levels with attention; the two have equal multipliers."""


class AdmLayout(ConditionedLayout):
    """ADM's UNet, told a class, a representation (RCG) or nothing. No file has a null: the reference drops nothing.

    Without its class, ours is led by the time alone.
    """

    kind = "adm"
    ours, project, null = "net.unet.", "rep_proj", None

    def imported(self, tensors: Tensors) -> Imported:
        if f"{self.project}.weight" in tensors:
            return super().imported(tensors)
        weights = {f"{self.ours}{name}": t for name, t in tensors.items() if name != _LABELS}
        if (table := tensors.get(_LABELS)) is not None:
            weights[f"{_CLASS}table.weight"] = table
            weights[f"{_CLASS}null"] = torch.zeros(1, table.shape[1])
            weights[f"{_CLASS}frequencies"] = torch.full((len(table),), 1.0 / len(table))
        return Imported(weights | identity_scale(self.channels(tensors)), {})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        told = {name for name in weights if name.startswith("conditioner.")}
        if other := sorted(name for name in told if not name.startswith((_REPRESENTATION, _CLASS))):
            expected = "conditions: [], or one of kind class or representation"
            what = f"no published {self.kind} file has a place for one of its conditions"
            raise WeightsError(what, got=other[0], expected=expected)
        if f"{_REPRESENTATION}project.weight" in weights:
            return super().exported(weights, kept)
        network = {name.removeprefix(self.ours): t for name, t in weights.items() if name.startswith(self.ours)}
        table = weights.get(f"{_CLASS}table.weight")
        return dict(kept) | network | ({} if table is None else {_LABELS: table})

    def channels(self, tensors: Tensors) -> int:
        return side_of(tensors, _INPUT, 1)

    def published(self, tensors: Tensors) -> Published:
        """What is known of a file of these sizes."""
        sizes = unet_sizes(tensors, side=256)
        return _PUBLISHED.get((sizes["width"], *sizes["multipliers"]), _ADM_256)

    def data(self, tensors: Tensors) -> GeneratorData:
        target = square_target("pixels", self.channels(tensors), self.published(tensors).side)
        project = f"{self.project}.weight"
        dim = side_of(tensors, project, 1) if project in tensors else 1
        return GeneratorData(target=target, dim=dim, classes=_classes(tensors, _LABELS))

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        known = self.published(tensors)
        told: list[dict[str, Any]] = []
        if f"{self.project}.weight" in tensors:
            told = [{"kind": "representation", "port": "vector", "drop_prob": 0.0, "project": True}]
        if _LABELS in tensors:
            told = [{"kind": "class", "port": "vector", "drop_prob": 0.0, "missing": "skip"}]
        return {
            "kind": "adm",
            **self.diffusion(tensors, side_of(tensors, "out.2.weight", 0)),
            "conditions": told,
            **unet_sizes(tensors, side=known.side),
            **known.facts,
            "qkv_order": known.qkv_order,
        }


class AdmUpsamplerLayout(AdmLayout):
    """ADM-U, whose further input channels are the small image, resized.

    Ours sees the level of the noise on the small image as one channel more: of weight zero, as ADM-U has no noise.
    """

    kind = "adm-upsampler"

    def imported(self, tensors: Tensors) -> Imported:
        found = super().imported(tensors)
        name, weight = f"{self.ours}{_INPUT}", tensors[_INPUT]
        level = weight.new_zeros(weight.shape[0], 1, *weight.shape[2:])
        return Imported({**found.weights, name: torch.cat([weight, level], 1)}, found.kept)

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        tensors = super().exported(weights, kept)
        weight = tensors[_INPUT]
        if not weight.is_meta and bool(weight[:, -1].any()):
            raise WeightsError(
                "an ADM-U file has no place for the level of the noise on the small image",
                got=f"{_INPUT} with weights of that channel",
                expected="an upsampler that was imported from such a file, and not trained with noise",
            )
        return {**tensors, _INPUT: weight[:, :-1].contiguous()}

    def check(self, tensors: Tensors, weights: Tensors, *, source: str) -> None:
        name = f"{self.ours}{_INPUT}"
        super().check(tensors, {**weights, name: torch.zeros_like(weights[name])}, source=source)

    def channels(self, tensors: Tensors) -> int:
        return side_of(tensors, _INPUT, 1) // 2

    def published(self, tensors: Tensors) -> Published:
        n_attended = len(attention_levels(tensors, "", unet_sizes(tensors, side=256)["n_blocks"]))
        return _UPSAMPLERS.get(n_attended, _UPSAMPLERS[3])

    def data(self, tensors: Tensors) -> GeneratorData:
        found, n = super().data(tensors), self.channels(tensors)
        small = self.published(tensors).side // _PUBLISHED_UPSAMPLING
        low_res = FieldSpec(name=LOW_RES, dtype="uint8", shape=(n, small, small))
        return found.model_copy(update={"more": (low_res,)})

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        facts = super().facts(tensors)
        low_res = {"kind": "low_res", "port": "spatial", "drop_prob": 0.0, "noise": 0.0}
        return {**facts, "conditions": [low_res, *facts["conditions"]]}

    def note(self, tensors: Tensors) -> str:
        px = self.published(tensors).side
        return f"it makes {px} pixels of {px // _PUBLISHED_UPSAMPLING}, which codec.model.px has to be; then: rcg plan"

    def section(self, tensors: Tensors) -> dict[str, Any]:
        return {"px": self.published(tensors).side, "sampling": dict(ANCESTRAL), "noise": 0.0}


class AdmClassifierLayout(Layout):
    """ADM's noise-aware classifiers, which read x_t as it is; the generator's cosine schedule at 64 pixels."""

    kind = "adm-classifier"
    ours = "net.unet."

    def imported(self, tensors: Tensors) -> Imported:
        n = side_of(tensors, "out.2.c_proj.weight", 0)
        weights = {f"{self.ours}{name}": t for name, t in tensors.items()}
        weights |= identity_scale(side_of(tensors, _INPUT, 1)) | {"frequencies": torch.full((n,), 1.0 / n)}
        return Imported(weights, {})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        if f"{self.ours}{_POSITIONS}" not in weights:
            raise WeightsError("only a guide of kind unet_encoder has the layout of ADM's classifiers")
        network = {name.removeprefix(self.ours): t for name, t in weights.items() if name.startswith(self.ours)}
        return dict(kept) | network

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        side = self._side(tensors)
        known = Published(side, "width", "cosine" if side == _COSINE_SIDE else "linear")
        return {
            "kind": "unet_encoder",
            **unet_sizes(tensors, side=side, n_blocks=blocks_of_encoder(tensors)),
            **known.facts,
            "input": "as_is",
            "latents": "as_stored",
        }

    def note(self, tensors: Tensors) -> str:
        scale = _SCALES.get(self._side(tensors), 1.0)
        return f"follow it with sample.pixels.guide: {{scale: {scale}}}, the published scale; then: rcg plan"

    def data(self, tensors: Tensors) -> GeneratorData:
        side = self._side(tensors)
        target = square_target("pixels", side_of(tensors, _INPUT, 1), side)
        return GeneratorData(target=target, dim=1, classes=_classes(tensors, "out.2.c_proj.weight"))

    def _side(self, tensors: Tensors) -> int:
        """Of the images: the positions that are pooled, doubled at every level."""
        levels = unet_sizes(tensors, side=1, n_blocks=blocks_of_encoder(tensors))["multipliers"]
        return math.isqrt(side_of(tensors, _POSITIONS, 1) - 1) << (len(levels) - 1)


_COSINE_SIDE = 64
"""The one size whose diffusion model, and so its classifier, has the cosine schedule."""
_SCALES = {64: 1.0, 128: 0.5, 256: 1.0, 512: 4.0}
"""At 250 steps, by side, of the class-conditional generators; the unconditional one at 256 pixels has 10."""


def _classes(tensors: Tensors, name: str) -> tuple[str, ...] | None:
    """Names for as many classes as a tensor has rows; None without it."""
    return tuple(map(str, range(side_of(tensors, name, 0)))) if name in tensors else None
