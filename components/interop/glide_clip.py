"""Files of GLIDE's noise-aware CLIP: the image tower, a guide to texts, and the text tower, which reads them.

Paper: 2112.10741, sec. 2.3; what shapes do not tell: clip/config.yaml of glide-text2im @69b5307.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from components.errors import WeightsError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.interop.clip import MEAN, STD
from components.interop.diffusion import identity_scale
from components.interop.layout import Imported, Layout, Tensors, depth_of, side_of
from components.interop.shadowed import square_target

Names = tuple[tuple[str, str], ...]

_HEAD_WIDTH, _SCALE = 64, 100.0
_BLOCK = "blocks.block_"
_FIRST_MLP = f"{_BLOCK}0.f_mlp.f_1.w"
_KINDS: Names = ((".g", ".weight"), (".w", ".weight"), (".b", ".bias"))
"""Ends of the file's names, and ours: a norm has g and b, a linear map w and b."""
_IMAGE: Names = (
    ("blocks.input.w_t", "times"),
    ("blocks.input.w_pos", "positions"),
    ("blocks.input.patch_proj", "patches.weight"),
    ("blocks.input.ln", "norm_in"),
    ("blocks.output.ln", "norm_out"),
    ("blocks.output.f", "project"),
)
_TEXT: Names = (
    ("blocks.input.w_voc", "text_model.embeddings.token_embedding.weight"),
    ("blocks.input.w_pos", "text_model.embeddings.position_embedding.weight"),
    ("blocks.output.ln", "text_model.final_layer_norm"),
    ("blocks.output.f", "text_projection"),
)


_PARTS = ("f_attn.ln", "f_attn.f_q", "f_attn.f_k", "f_attn.f_v", "f_attn.f_c", "f_mlp.ln", "f_mlp.f_1", "f_mlp.f_2")
"""Of a block of either tower, in the file."""


def _paired(*ours: str) -> Names:
    return tuple(zip(_PARTS, ours, strict=True))


class GlideClipLayout(Layout):
    """What the towers share: queries, keys and values apart, of which the keys have no bias.

    Ours have one: zero after the import, and left out in a file, as what it adds is equal for all keys of a softmax.
    """

    top: ClassVar[Names]
    block: ClassVar[Names]
    blocks: ClassVar[str]
    """Ours, before the number."""

    def _ours(self, name: str) -> str:
        stem, end = next(((name.removesuffix(a), b) for a, b in _KINDS if name.endswith(a)), (name, ""))
        if stem.startswith(_BLOCK):
            number, _, part = stem.removeprefix(_BLOCK).partition(".")
            return f"{self.blocks}{number}.{dict(self.block).get(part, part)}{end}"
        return f"{dict(self.top).get(stem, stem)}{end}"

    def _renamed(self, tensors: Tensors) -> dict[str, Tensor]:
        return {self._ours(name): t for name, t in tensors.items()}

    def _theirs(self, weights: Tensors) -> dict[str, Tensor]:
        depth, turned = depth_of(weights, self.blocks), dict[str, str]()
        blocks = [(f"{_BLOCK}{i}.{theirs}", "") for i in range(depth) for theirs, _ in self.block]
        for stem, _ in (*self.top, *blocks):
            ends = (".g", ".b") if stem.endswith(".ln") else ("", ".w", ".b")
            turned |= {self._ours(f"{stem}{end}"): f"{stem}{end}" for end in ends}
        return {turned[name]: t for name, t in weights.items() if name in turned}

    def width(self, tensors: Tensors) -> int:
        return side_of(tensors, _FIRST_MLP, 1)

    def sizes(self, tensors: Tensors) -> dict[str, Any]:
        """Of the transformer."""
        width = self.width(tensors)
        return {
            "width": width,
            "depth": depth_of({name.replace(_BLOCK, "b."): t for name, t in tensors.items()}, "b."),
            "heads": max(1, width // _HEAD_WIDTH),
            "mlp_ratio": side_of(tensors, _FIRST_MLP, 0) / width,
        }


class GlideClipImageLayout(GlideClipLayout):
    """The image tower: 64 pixels, in noise of the cosine schedule."""

    kind = "glide-clip-image"
    top, blocks = _IMAGE, "blocks."
    block = _paired("norm1", "attn.q", "attn.k", "attn.v", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    ours = "net."

    def imported(self, tensors: Tensors) -> Imported:
        found = self._renamed(tensors)
        for i in range(depth_of(found, self.blocks)):
            at = f"{self.blocks}{i}.attn."
            q, k, v = (found.pop(f"{at}{part}.weight") for part in "qkv")
            q_bias, v_bias = (found.pop(f"{at}{part}.bias") for part in "qv")
            found |= {f"{at}qkv.weight": torch.cat([q, k, v])}
            found |= {f"{at}qkv.bias": torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])}
        weights = {f"{self.ours}{name}": t for name, t in found.items()}
        return Imported(weights | identity_scale(3) | {"log_scale": torch.tensor(math.log(_SCALE))}, {})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        found = {name.removeprefix(self.ours): t for name, t in weights.items() if name.startswith(self.ours)}
        if "times" not in found or "log_scale" not in weights:
            raise WeightsError("only a guide of kind vit that recognizes texts has the layout of GLIDE's CLIP")
        for i in range(depth_of(found, self.blocks)):
            for end in ("weight", "bias"):
                parts = found.pop(f"{self.blocks}{i}.attn.qkv.{end}").chunk(3)
                found |= {f"{self.blocks}{i}.attn.{x}.{end}": part for x, part in zip("qkv", parts, strict=True)}
            del found[f"{self.blocks}{i}.attn.k.bias"]
        return dict(kept) | self._theirs(found)

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        return {
            "kind": "vit",
            "recognizes": "text",
            "patch": side_of(tensors, "blocks.input.patch_proj", 2),
            **self.sizes(tensors),
            "schedule": {"kind": "cosine", "n_times": side_of(tensors, "blocks.input.w_t", 0)},
            "input": "as_is",
            "mean": list(MEAN),
            "std": list(STD),
        }

    def data(self, tensors: Tensors) -> GeneratorData:
        patch = side_of(tensors, "blocks.input.patch_proj", 2)
        side = patch * math.isqrt(side_of(tensors, "blocks.input.w_pos", 0) - 1)
        shape = (side_of(tensors, "blocks.output.f.w", 0),)
        text = FieldSpec(name="text", dtype="float32", shape=shape, ragged=True, nullable=True, choices=True)
        return GeneratorData(target=square_target("pixels", 3, side), dim=1, classes=None, more=(text,))

    def note(self, tensors: Tensors) -> str:  # noqa: ARG002
        return "texts are those of the other file, clip_text_enc.pt, which stage text has to import; then: rcg plan"


class GlideClipTextLayout(GlideClipLayout):
    """The text tower, which has the build of CLIP's."""

    kind = "glide-clip-text"
    top, blocks = _TEXT, "text_model.encoder.layers."
    block = _paired(
        "layer_norm1",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
        "layer_norm2",
        "mlp.fc1",
        "mlp.fc2",
    )

    def imported(self, tensors: Tensors) -> Imported:
        found = self._renamed(tensors)
        keys = {n.replace(".weight", ".bias"): t for n, t in found.items() if n.endswith("k_proj.weight")}
        return Imported(found | {name: t.new_zeros(len(t)) for name, t in keys.items()}, {})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        return dict(kept) | self._theirs({n: t for n, t in weights.items() if not n.endswith("k_proj.bias")})

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        n_positions = side_of(tensors, "blocks.input.w_pos", 0)
        return {
            "kind": "clip",
            **self.sizes(tensors),
            "joint_dim": side_of(tensors, "blocks.output.f.w", 0),
            "vocabulary": side_of(tensors, "blocks.input.w_voc", 0),
            "n_positions": n_positions,
            "quick_gelu": False,
            "max_tokens": n_positions,
        }
