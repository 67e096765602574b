"""The representation generator's file. Paper: 2312.03701 (RCG)."""

from typing import Any

import torch
from torch import Tensor

from components.interop.layout import Imported, Tensors, depth_of, side_of
from components.interop.shadowed import NETWORK, SCHEDULE, ShadowedLayout

_TABLE = "cond_stage_model.embedding.weight"
_UNREAD_TABLE = (1, 512)
"""The unconditional model's class table: computed and ignored."""


class RdmLayout(ShadowedLayout):
    """Averaged denoiser and live class table, which is what the reference samples with."""

    kind = "rdm"
    ours = "denoiser."

    def imported(self, tensors: Tensors) -> Imported:
        found = super().imported(tensors)
        if not _class_conditional(tensors):
            return found
        table = tensors[_TABLE]
        told = {"embedding.weight": table, "frequencies": torch.full((len(table),), 1.0 / len(table))}
        return Imported(found.weights | told, {name: t for name, t in found.kept.items() if name != _TABLE})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        table = weights.get("embedding.weight", kept.get(_TABLE, torch.zeros(_UNREAD_TABLE)))
        return super().exported(weights, kept) | {_TABLE: table}

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        return {
            "kind": "residual_mlp",
            "dim": side_of(tensors, f"{NETWORK}input_proj.weight", 1),
            "width": side_of(tensors, f"{NETWORK}input_proj.weight", 0),
            "depth": depth_of(tensors, f"{NETWORK}res_blocks."),
            "time_dim": side_of(tensors, f"{NETWORK}time_embed.0.weight", 0),
            "class_conditional": _class_conditional(tensors),
            "context_dim": side_of(tensors, _TABLE, 1),
            "schedule": SCHEDULE.model_dump(),
        }


def _class_conditional(tensors: Tensors) -> bool:
    return f"{NETWORK}res_blocks.0.context_layers.1.weight" in tensors
