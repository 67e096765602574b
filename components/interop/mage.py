"""MAGE's file: the transformer, its condition, and much that no forward pass reads.

n: tokens of an image. The word table has the codes, 1,000 legacy words (1100 is the "fake class") and the mask token.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as tf

from components.generators.config import GeneratorData
from components.interop.layout import Imported, Layout, Tensors, depth_of, heads_of, side_of
from components.nn.patches import sincos_positions
from components.target import TargetSpec

_OURS = "transformer."
_BY_Z, _BY_CLASS = "conditioner.representation.", "conditioner.class."
_WORDS, _BIAS = "token_emb.word_embeddings.weight", "mlm_layer.bias"
_N_LEGACY, _FAKE_CLASS = 1000, 1100
_NULL, _PROJECT, _CLASSES = "fake_latent", "latent_prior_proj", "class_emb"
_UNREAD = ("cls_token", "mask_token", "pos_embed", "decoder_pos_embed", "token_emb.position_ids")
_UNREAD_PREFIXES = ("patch_embed.proj.", "decoder_pred.")
_HEADS = {768: 12, 1024: 16, 1280: 16}
_DECODER_HEADS, _PATCH_PX, _PATCH_OUT = 16, 16, 768


class MageLayout(Layout):
    """Representation-conditional, class-conditional and unconditional MAGE."""

    kind = "mage"

    def imported(self, tensors: Tensors) -> Imported:
        special = (_NULL, f"{_PROJECT}.weight", f"{_PROJECT}.bias", f"{_CLASSES}.weight", _CLASSES, *_UNREAD)
        own = {n for n in tensors if n not in special and not n.startswith(_UNREAD_PREFIXES)}
        weights = {f"{_OURS}{name}": tensors[name] for name in own}
        n_codes = _n_codes(tensors)
        words, bias = tensors[_WORDS], tensors[_BIAS]
        weights[f"{_OURS}{_WORDS}"] = torch.cat([words[:n_codes], words[-1:]])
        weights[f"{_OURS}{_BIAS}"] = bias[..., :n_codes].clone()
        condition, used = _condition(tensors)
        kept = {n: t for n, t in tensors.items() if n in (_WORDS, _BIAS) or (n not in own and n not in used)}
        return Imported(weights | condition, kept)

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        own = {name.removeprefix(_OURS): t for name, t in weights.items() if name.startswith(_OURS)}
        words, bias = own[_WORDS], own[_BIAS]
        n_codes, width = bias.shape[-1], words.shape[1]
        all_words = kept.get(_WORDS, torch.zeros(n_codes + _N_LEGACY + 1, width)).clone()
        all_bias = kept.get(_BIAS, torch.zeros(1, 1, len(all_words))).clone()
        if not words.is_meta:
            all_words[:n_codes], all_words[-1:], all_bias[..., :n_codes] = words[:n_codes], words[-1:], bias
        own |= {_WORDS: all_words, _BIAS: all_bias} | _exported_condition(weights)
        return _unread(own) | dict(kept) | own

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        width = side_of(tensors, _WORDS, 1)
        told = {"port": "vector", "drop_prob": 0.1 if _null_is_trained(tensors) else 0.0}
        conditions: list[dict[str, Any]] = []
        if f"{_PROJECT}.weight" in tensors:
            conditions = [{"kind": "representation", **told, "project": True}]
        elif _class_table(tensors):
            conditions = [{"kind": "class", **told, "missing": "null"}]
        return {
            "kind": "mage",
            "conditions": conditions,
            "width": width,
            "depth": depth_of(tensors, "blocks."),
            "heads": heads_of(width, _HEADS),
            "decoder_depth": depth_of(tensors, "decoder_blocks."),
            "decoder_heads": heads_of(width, dict.fromkeys(_HEADS, _DECODER_HEADS)),
            "mlp_ratio": side_of(tensors, "blocks.0.mlp.fc1.weight", 0) / width,
            "drop_prob": 0.1,
            "label_smoothing": 0.1,
            "mask": {"mean": 0.75, "std": 0.25, "least": 0.5},
        }

    def data(self, tensors: Tensors) -> GeneratorData:
        side = math.isqrt(side_of(tensors, "token_emb.position_embeddings.weight", 0) - 1)
        target = TargetSpec(
            space="tokens", shape=(side, side), dtype="int32", n_codes=_n_codes(tensors), image_px=_PATCH_PX * side
        )
        table = _class_table(tensors)
        classes = None if table is None else tuple(map(str, range(len(tensors[table]))))
        project = f"{_PROJECT}.weight"
        return GeneratorData(
            target=target, dim=side_of(tensors, project, 1) if project in tensors else 1, classes=classes
        )

    def sampling(self, tensors: Tensors) -> dict[str, Any]:
        temperature, guidance = (6.0, 1.0) if side_of(tensors, _WORDS, 1) == 768 else (11.0, 6.0)
        guidance = guidance if _null_is_trained(tensors) else 0.0
        return {"kind": "masked", "steps": 20, "temperature": temperature, "guidance": guidance}

    def may_lack(self, name: str) -> bool:
        return name == _NULL

    def tolerates(self, name: str) -> bool:
        return name == _NULL


def _n_codes(tensors: Tensors) -> int:
    return side_of(tensors, _WORDS, 0) - _N_LEGACY - 1


def _null_is_trained(tensors: Tensors) -> bool:
    """Only a representation is ever dropped for the null; one of zeros never was."""
    return f"{_PROJECT}.weight" in tensors and _NULL in tensors and bool(tensors[_NULL].any())


def _class_table(tensors: Tensors) -> str | None:
    return next((name for name in (f"{_CLASSES}.weight", _CLASSES) if name in tensors), None)


def _condition(tensors: Tensors) -> tuple[dict[str, Tensor], set[str]]:
    """Our conditioner's tensors, and the names in the file that they came from."""
    if f"{_PROJECT}.weight" in tensors:
        dim = side_of(tensors, f"{_PROJECT}.weight", 1)
        project = {f"{_BY_Z}project.{part}": tensors[f"{_PROJECT}.{part}"] for part in ("weight", "bias")}
        null = tensors.get(_NULL, torch.zeros(1, dim))
        return {**project, f"{_BY_Z}null": null}, {f"{_PROJECT}.weight", f"{_PROJECT}.bias", _NULL}
    name = _class_table(tensors)
    if name is not None:
        table = tensors[name]
        null, frequencies = torch.zeros(1, table.shape[1]), torch.full((len(table),), 1.0 / len(table))
        ours = {f"{_BY_CLASS}table.weight": table, f"{_BY_CLASS}null": null, f"{_BY_CLASS}frequencies": frequencies}
        return ours, {name}
    return {"conditioner.constant": _fake_class(tensors)}, set()


def _fake_class(tensors: Tensors) -> Tensor:
    """What stands at position 0 of the unconditional model: always the same vector."""
    norm = "token_emb.LayerNorm"
    x = tensors[_WORDS][_FAKE_CLASS] + tensors["token_emb.position_embeddings.weight"][0]
    out = tf.layer_norm(x, x.shape, tensors[f"{norm}.weight"], tensors[f"{norm}.bias"], eps=1e-6)
    return out[None]


def _exported_condition(weights: Tensors) -> dict[str, Tensor]:
    if f"{_BY_Z}project.weight" in weights:
        project = {f"{_PROJECT}.{part}": weights[f"{_BY_Z}project.{part}"] for part in ("weight", "bias")}
        return {**project, _NULL: weights[f"{_BY_Z}null"]}
    if f"{_BY_CLASS}table.weight" in weights:
        return {f"{_CLASSES}.weight": weights[f"{_BY_CLASS}table.weight"]}
    return {}


def _unread(own: Tensors) -> dict[str, Tensor]:
    """What the reference stores besides, as it initializes it; zeros where that is random."""
    n, width = own["token_emb.position_embeddings.weight"].shape
    side = int((n - 1) ** 0.5)
    positions = torch.cat([torch.zeros(1, width), sincos_positions(side, width)])[None]
    return {
        "cls_token": torch.zeros(1, 1, width),
        "mask_token": torch.zeros(1, 1, width),
        "pos_embed": positions,
        "decoder_pos_embed": positions.clone(),
        "token_emb.position_ids": torch.arange(n)[None],
        "patch_embed.proj.weight": torch.zeros(width, 3, _PATCH_PX, _PATCH_PX),
        "patch_embed.proj.bias": torch.zeros(width),
        "decoder_pred.weight": torch.zeros(_PATCH_OUT, width),
        "decoder_pred.bias": torch.zeros(_PATCH_OUT),
    }
