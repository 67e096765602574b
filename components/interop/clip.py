"""CLIP's files: OpenAI's (TorchScript), open_clip's and Hugging Face's. Each holds an image and a text tower.

The names of a stand-alone file are OpenAI's; the towers' networks have timm's and transformers'.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from components.interop.layout import Imported, Layout, Tensors, depth_of, heads_of, side_of
from components.weights import Tables

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HEADS = {1280: 16, 1408: 16, 1664: 16}
_TABLES = ("", "state_dict", "model")
_OPENAI = "context_length"
"""A tensor that only OpenAI's own files have."""
_BESIDE = ("logit_scale", "logit_bias", "input_resolution", _OPENAI, "vocab_size", "attn_mask")

_TIMM = (
    ("visual.class_embedding", "cls_token"),
    ("visual.conv1.", "patch_embed.proj."),
    ("visual.positional_embedding", "pos_embed"),
    ("visual.ln_pre.", "norm_pre."),
    ("visual.ln_post.", "norm."),
    ("visual.proj", "head.weight"),
    ("visual.transformer.resblocks.", "blocks."),
)
_TIMM_BLOCK = (
    (".ln_1.", ".norm1."),
    (".ln_2.", ".norm2."),
    (".attn.in_proj_", ".attn.qkv."),
    (".attn.out_proj.", ".attn.proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
_HF = (
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.proj", "visual_projection.weight"),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
    ("text_projection", "text_projection.weight"),
    ("transformer.resblocks.", "text_model.encoder.layers."),
)
_HF_BLOCK = (
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
_PROJECTIONS = {"visual.proj", "text_projection"}
"""OpenAI's are (width, joint), those of linear layers (joint, width)."""
_IN_PROJ = re.compile(r"(.*)\.attn\.in_proj_(weight|bias)$")
_QKV = re.compile(r"(.*)\.self_attn\.q_proj\.(weight|bias)$")


class ClipLayout(Layout):
    """The image tower."""

    kind: ClassVar[str] = "clip"

    def __init__(self, *, headless: bool = False) -> None:
        self.headless = headless

    def find(self, tables: Tables) -> dict[str, Tensor] | None:
        found = _of_file(tables)
        if found is None or "visual.class_embedding" not in found:
            return None
        return {name: t for name, t in found.items() if name.startswith("visual.") or name == _OPENAI}

    def tolerates(self, name: str) -> bool:
        return name in _BESIDE or (self.headless and name == "visual.proj")

    def imported(self, tensors: Tensors) -> Imported:
        weights, kept = dict[str, Tensor](), dict[str, Tensor]()
        for name, tensor in tensors.items():
            if self.tolerates(name):
                kept[name] = tensor
            else:
                weights[_renamed(name, _TIMM, _TIMM_BLOCK)] = _to_timm(name, tensor)
        return Imported(weights, kept)

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        back = {_renamed(name, _turned(_TIMM), _turned(_TIMM_BLOCK)): t for name, t in weights.items()}
        return dict(kept) | {name: _from_timm(name, tensor) for name, tensor in back.items()}

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        patches, width = side_of(tensors, "visual.conv1.weight", 2), side_of(tensors, "visual.conv1.weight", 0)
        return {
            "kind": self.kind,
            "input_px": patches * round((side_of(tensors, "visual.positional_embedding", 0) - 1) ** 0.5),
            "patch_px": patches,
            "width": width,
            "depth": depth_of(tensors, "visual.transformer.resblocks."),
            "heads": heads_of(width, _HEADS),
            "mlp_ratio": side_of(tensors, "visual.transformer.resblocks.0.mlp.c_fc.weight", 0) / width,
            "joint_dim": side_of(tensors, "visual.proj", 1),
            "quick_gelu": _OPENAI in tensors,
            "output": "projector",
            "mean": list(MEAN),
            "std": list(STD),
        }


class ClipTextLayout(Layout):
    """The text tower."""

    kind: ClassVar[str] = "clip-text"

    def find(self, tables: Tables) -> dict[str, Tensor] | None:
        found = _of_file(tables)
        if found is None or "text_projection" not in found:
            return None
        return {name: t for name, t in found.items() if not name.startswith("visual.")}

    def tolerates(self, name: str) -> bool:
        return name in _BESIDE

    def imported(self, tensors: Tensors) -> Imported:
        kept = {name: t for name, t in tensors.items() if self.tolerates(name)}
        return Imported(_to_hf({name: t for name, t in tensors.items() if name not in kept}), kept)

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        return dict(kept) | _from_hf(weights)

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        width = side_of(tensors, "token_embedding.weight", 1)
        n_positions = side_of(tensors, "positional_embedding", 0)
        return {
            "kind": "clip",
            "width": width,
            "depth": depth_of(tensors, "transformer.resblocks."),
            "heads": heads_of(width, {}),
            "mlp_ratio": side_of(tensors, "transformer.resblocks.0.mlp.c_fc.weight", 0) / width,
            "joint_dim": side_of(tensors, "text_projection", 1),
            "vocabulary": side_of(tensors, "token_embedding.weight", 0),
            "n_positions": n_positions,
            "quick_gelu": _OPENAI in tensors,
            "max_tokens": n_positions,
        }


def _of_file(tables: Tables) -> dict[str, Tensor] | None:
    """OpenAI's names of a CLIP, in float32; None for any other file."""
    for table in (tables[name] for name in _TABLES if name in tables):
        if "text_model.embeddings.token_embedding.weight" in table:
            found = _from_hf(table)
        elif "token_embedding.weight" in table or "text.token_embedding.weight" in table:
            found = {name.removeprefix("text."): t for name, t in table.items()}
        else:
            continue
        return {name: t.float() if t.is_floating_point() else t for name, t in found.items()}
    return None


def _renamed(name: str, names: tuple[tuple[str, str], ...], inside: tuple[tuple[str, str], ...]) -> str:
    """The first pair whose left side begins the name (or, without a dot at its end, is it) replaces it."""
    for old, new in names:
        if name == old or (old.endswith(".") and name.startswith(old)):
            name = new + name[len(old) :]
            break
    for old, new in inside:
        name = name.replace(old, new)
    return name


def _turned(names: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((new, old) for old, new in names)


def _to_timm(name: str, tensor: Tensor) -> Tensor:
    if name == "visual.class_embedding":
        return tensor[None, None]
    if name == "visual.positional_embedding":
        return tensor[None]
    return tensor.T.contiguous() if name in _PROJECTIONS else tensor


def _from_timm(name: str, tensor: Tensor) -> Tensor:
    if name in ("visual.class_embedding", "visual.positional_embedding"):
        return tensor.reshape(tensor.shape[1 + (name == "visual.class_embedding") :])
    return tensor.T.contiguous() if name in _PROJECTIONS else tensor


def _to_hf(tensors: Tensors) -> dict[str, Tensor]:
    """OpenAI's names to Hugging Face's, which have queries, keys and values apart."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = _renamed(name, _HF, _HF_BLOCK)
        if (found := _IN_PROJ.match(new)) is not None:
            block, what = found.groups()
            out |= {f"{block}.self_attn.{x}_proj.{what}": part for x, part in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            out[new] = tensor.T.contiguous() if name in _PROJECTIONS else tensor
    return out


def _from_hf(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back; positions are numbers that no file needs."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(("position_ids", ".k_proj.weight", ".k_proj.bias", ".v_proj.weight", ".v_proj.bias")):
            continue
        new = _renamed(name, _turned(_HF), _turned(_HF_BLOCK))
        if (found := _QKV.match(new)) is not None:
            block, what = found.groups()
            parts = [tensors[name.replace(".q_proj.", f".{x}_proj.")] for x in "qkv"]
            out[f"{block}.attn.in_proj_{what}"] = torch.cat(parts)
        else:
            out[new] = tensor.T.contiguous() if new in _PROJECTIONS else tensor
    return out
