"""The representation generator's file. Paper: 2312.03701 (RCG)."""

from typing import Any

import torch
from torch import Tensor

from components.errors import WeightsError
from components.generators.config import GeneratorData
from components.interop.layout import Imported, Tensors, depth_of, side_of
from components.interop.shadowed import NETWORK, SCHEDULE, ShadowedLayout, square_target

_TABLE = "cond_stage_model.embedding.weight"
_CLASSES = "conditioner.class."
BASE = "process.base."
"""Of a fitted base distribution, in our module."""
_UNREAD_TABLE = (1, 512)
"""The unconditional model's class table: computed and ignored."""


class RdmLayout(ShadowedLayout):
    """Averaged denoiser and live class table, which is what the reference samples with."""

    kind = "rdm"
    ours = "net."

    def imported(self, tensors: Tensors) -> Imported:
        found = super().imported(tensors)
        dim = side_of(tensors, f"{NETWORK}input_proj.weight", 1)
        weights = found.weights | {"mean": torch.zeros(dim), "std": torch.ones(dim)}
        if not _class_conditional(tensors):
            return Imported(weights, found.kept)
        table = tensors[_TABLE]
        weights |= {
            f"{_CLASSES}table.weight": table,
            f"{_CLASSES}null": torch.zeros(1, table.shape[1]),
            f"{_CLASSES}frequencies": torch.full((len(table),), 1.0 / len(table)),
        }
        return Imported(weights, {name: t for name, t in found.kept.items() if name != _TABLE})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        table = weights.get(f"{_CLASSES}table.weight", kept.get(_TABLE, torch.zeros(_UNREAD_TABLE)))
        return super().exported(weights, kept) | {_TABLE: table}

    def check(self, tensors: Tensors, weights: Tensors, *, source: str) -> None:
        if any(name.startswith(BASE) for name in weights):
            fix = "set rdm.model.base: {kind: normal}, or train"
            raise WeightsError(f"{source} is a generator whose process ends in N(0, I)", got="base: gaussians", fix=fix)
        super().check(tensors, weights, source=source)

    def data(self, tensors: Tensors) -> GeneratorData:
        classes = map(str, range(side_of(tensors, _TABLE, 0))) if _class_conditional(tensors) else None
        dim = side_of(tensors, f"{NETWORK}input_proj.weight", 1)
        return GeneratorData(target=square_target("pixels", 3, 256), dim=dim, classes=classes and tuple(classes))

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        told = {"kind": "class", "port": "vector", "drop_prob": 0.0, "missing": "skip"}
        return {
            "kind": "residual_mlp",
            "conditions": [told] if _class_conditional(tensors) else [],
            "dim": side_of(tensors, f"{NETWORK}input_proj.weight", 1),
            "width": side_of(tensors, f"{NETWORK}input_proj.weight", 0),
            "depth": depth_of(tensors, f"{NETWORK}res_blocks."),
            "time_dim": side_of(tensors, f"{NETWORK}time_embed.0.weight", 0),
            "context_dim": side_of(tensors, _TABLE, 1),
            "schedule": SCHEDULE.model_dump(),
            "prediction": "x0",
            "min_snr": None,
            "variance": "fixed",
        }


def _class_conditional(tensors: Tensors) -> bool:
    return f"{NETWORK}res_blocks.0.context_layers.1.weight" in tensors
