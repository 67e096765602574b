"""The representation generator's file: a live and an averaged denoiser, the class table, and the schedule's buffers.

The averaged copy's names are the live ones below `model.` with every dot removed. Paper: 2312.03701 (RCG).
"""

from typing import Any

import torch
from torch import Tensor

from components.diffusion.schedule import ScheduleConfig, alpha_bars
from components.interop.layout import Imported, Layout, Tensors, depth_of, side_of

_LIVE, _EMA, _TABLE = "model.diffusion_model.", "model_ema.", "cond_stage_model.embedding.weight"
_OURS = "denoiser."
_SCHEDULE = ScheduleConfig(kind="sqrt_linear", n_times=1000)
_UNREAD_TABLE = (1, 512)
"""The unconditional model's class table: computed and ignored."""


class RdmLayout(Layout):
    """Imports the averaged denoiser and the live class table, which is what the reference samples with."""

    kind = "rdm"

    def imported(self, tensors: Tensors) -> Imported:
        names = [name.removeprefix(_LIVE) for name in tensors if name.startswith(_LIVE)]
        weights = {f"{_OURS}{name}": tensors[_shadow(name)] for name in names}
        used = {_shadow(name) for name in names}
        if any("context_layers" in name for name in names):
            table = tensors[_TABLE]
            weights |= {"embedding.weight": table, "frequencies": torch.full((len(table),), 1.0 / len(table))}
            used.add(_TABLE)
        return Imported(weights, {name: tensor for name, tensor in tensors.items() if name not in used})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        denoiser = {name.removeprefix(_OURS): t for name, t in weights.items() if name.startswith(_OURS)}
        table = weights.get("embedding.weight", torch.zeros(_UNREAD_TABLE))
        filled = {**buffers(), _TABLE: table}
        filled |= {f"{_EMA}decay": torch.tensor(0.9999), f"{_EMA}num_updates": torch.tensor(0, dtype=torch.int32)}
        filled |= {f"{_LIVE}{name}": t for name, t in denoiser.items()}
        return filled | dict(kept) | {_shadow(name): t for name, t in denoiser.items()}

    def facts(self, tensors: Tensors) -> dict[str, Any]:
        context = f"{_LIVE}res_blocks.0.context_layers.1.weight"
        return {
            "kind": "residual_mlp",
            "dim": side_of(tensors, f"{_LIVE}input_proj.weight", 1),
            "width": side_of(tensors, f"{_LIVE}input_proj.weight", 0),
            "depth": depth_of(tensors, f"{_LIVE}res_blocks."),
            "time_dim": side_of(tensors, f"{_LIVE}time_embed.0.weight", 0),
            "class_conditional": context in tensors,
            "context_dim": side_of(tensors, _TABLE, 1),
            "schedule": _SCHEDULE.model_dump(),
        }


def _shadow(name: str) -> str:
    return _EMA + f"diffusion_model.{name}".replace(".", "")


def buffers() -> dict[str, Tensor]:
    """The schedule as the reference stores it: twelve float32 vectors of 1000, computed in float64."""
    ab = alpha_bars(_SCHEDULE)
    before = torch.cat([torch.ones(1, dtype=ab.dtype), ab[:-1]])
    alphas = ab / before
    betas = 1 - alphas
    variance = betas * (1 - before) / (1 - ab)
    table = {
        "betas": betas,
        "alphas_cumprod": ab,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": ab.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - ab).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - ab).log(),
        "sqrt_recip_alphas_cumprod": (1 / ab).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / ab - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - ab),
        "posterior_mean_coef2": (1 - before) * alphas.sqrt() / (1 - ab),
    }
    return {name: values.float() for name, values in table.items()}
