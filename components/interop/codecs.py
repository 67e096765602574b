"""The layouts that stage `codec` imports. VQGAN and VQ-f8 carry the names of their files; kl comes from diffusers."""

import re
from typing import Any

from torch import Tensor

from components.interop.layout import Imported, Layout, SameNames, Tensors, depth_of, side_of
from components.weights import check_tensors

_CODES = "quantize.embedding.weight"


class VqganLayout(SameNames):
    """MaskGIT's VQGAN as converted from JAX: 168 tensors, no discriminator."""

    kind = "vqgan"

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        return {
            "kind": "vqgan",
            **_levels(tensors),
            "n_codes": side_of(tensors, _CODES, 0),
            "code_dim": side_of(tensors, _CODES, 1),
            "shortcut": "branch",
            "space": "tokens",
        }


class VqF8Layout(SameNames):
    """LDM's VQ-f8 as CompVis saves it; discriminator and perceptual network (`loss.`) are kept aside."""

    kind = "vq-f8"
    unread = ("loss.",)

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        codes = {"n_codes": side_of(tensors, _CODES, 0), "code_dim": side_of(tensors, _CODES, 1)}
        return {"kind": "vq-f8", **_shape(tensors), **codes, "dtype": "float32"}


class KlLayout(Layout):
    """Diffusers' AutoencoderKL: other names, levels of the decoder counted from the coarsest, attention as matrices."""

    kind = "kl"

    def imported(self, tensors: Tensors) -> Imported:
        n = depth_of(tensors, "encoder.down_blocks.")
        weights = {_from_diffusers(name, n): tensor for name, tensor in tensors.items()}
        weights = {n: t[:, :, None, None] if _is_projection(n) and t.ndim == 2 else t for n, t in weights.items()}
        return Imported(weights, {name: t for name, t in tensors.items() if _has_old_name(name)})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        n = depth_of(weights, "encoder.down.")
        old = any(_has_old_name(name) for name in kept)
        flat = {name: t[:, :, 0, 0] if _is_projection(name) else t for name, t in weights.items()}
        return {_to_diffusers(name, n, old=old): tensor for name, tensor in flat.items()}

    def check(self, tensors: Tensors, weights: Tensors, *, source: str) -> None:
        wanted = self.exported(weights, {name: t for name, t in tensors.items() if _has_old_name(name)})
        check_tensors(tensors, wanted, source=source, model="this kl, in diffusers' layout")

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        ours = self.imported(tensors).weights
        return {"kind": "kl", **_shape(ours), "scale": 0.18215, "posterior": "sample", "dtype": "float32"}


def _levels(tensors: Tensors) -> dict[str, Any]:
    """The part of the facts that all three share, from names as CompVis gives them."""
    width = side_of(tensors, "encoder.conv_in.weight", 0)
    n_levels = depth_of(tensors, "encoder.down.")
    widths = [side_of(tensors, f"encoder.down.{i}.block.0.conv1.weight", 0) for i in range(n_levels)]
    return {
        "px": 256,
        "width": width,
        "multipliers": [w // width for w in widths],
        "n_blocks": depth_of(tensors, "encoder.down.0.block."),
        "groups": 32,
    }


def _shape(tensors: Tensors) -> dict[str, Any]:
    """What kl and vq-f8 share besides."""
    levels = _levels(tensors)
    n_levels = len(levels["multipliers"])
    return {
        **levels,
        "attention_levels": [i for i in range(n_levels) if f"encoder.down.{i}.attn.0.q.weight" in tensors],
        "latent_dim": side_of(tensors, "decoder.conv_in.weight", 1),
    }


_NAMES = (
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
)
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
_MIDDLE = "mid_block.attentions.0."


def _is_projection(name: str) -> bool:
    """Ours: a 1x1 convolution that diffusers stores as a matrix."""
    return ".attn_1." in name and ".norm." not in name and name.endswith(".weight")


def _has_old_name(name: str) -> bool:
    return _MIDDLE in name and any(f".{old}." in name for old in _OLD_ATTENTION.values())


def _to_diffusers(name: str, n_levels: int, *, old: bool) -> str:
    for ours, theirs in _NAMES:
        name = re.sub(ours, theirs, name)
    name = re.sub(r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets.", name)
    name = re.sub(r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0.", name)
    name = re.sub(r"\.up\.(\d+)\.", lambda m: f".up_blocks.{n_levels - 1 - int(m[1])}.", name)
    name = re.sub(r"(up_blocks\.\d+)\.block\.", r"\1.resnets.", name).replace(".upsample.", ".upsamplers.0.")
    head, found, tail = name.partition(_MIDDLE)
    if found:
        part, _, kind = tail.rpartition(".")
        part = _ATTENTION[part]
        name = f"{head}{_MIDDLE}{_OLD_ATTENTION.get(part, part) if old else part}.{kind}"
    return name


def _from_diffusers(name: str, n_levels: int) -> str:
    head, found, tail = name.partition(_MIDDLE)
    if found:
        part, _, kind = tail.rpartition(".")
        new = next((new for new, old in _OLD_ATTENTION.items() if old == part), part)
        ours = next((ours for ours, theirs in _ATTENTION.items() if theirs == new), new)
        name = f"{head}{_MIDDLE}{ours}.{kind}"
    for pattern, theirs in _NAMES:
        name = name.replace(theirs, pattern.replace("\\", ""))
    name = re.sub(r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block.", name)
    name = re.sub(r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample.", name)
    name = re.sub(r"\.up_blocks\.(\d+)\.", lambda m: f".up.{n_levels - 1 - int(m[1])}.", name)
    return re.sub(r"(\.up\.\d+)\.resnets\.", r"\1.block.", name).replace(".upsamplers.0.", ".upsample.")


LAYOUTS: tuple[Layout, ...] = (VqganLayout(), VqF8Layout(), KlLayout())
