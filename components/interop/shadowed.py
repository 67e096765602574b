"""Files of CompVis's latent diffusion code: a live network, its averaged shadow, and the schedule's buffers.

The shadow's names are the live ones below `model.` with every dot removed.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from components.diffusion.process import alpha_bars
from components.diffusion.schedule import ScheduleConfig
from components.interop.layout import Imported, Layout, Tensors
from components.target import TargetSpec

NETWORK, EMA = "model.diffusion_model.", "model_ema."
SCHEDULE = ScheduleConfig(kind="sqrt_linear", n_times=1000)


class ShadowedLayout(Layout):
    """Imports the averaged network, with which the reference samples; the live one is kept."""

    ours: ClassVar[str]
    """Prefix of the network's names in our module."""

    def imported(self, tensors: Tensors) -> Imported:
        names = [name.removeprefix(NETWORK) for name in tensors if name.startswith(NETWORK)]
        weights = {f"{self.ours}{name}": tensors[shadow(name)] for name in names}
        used = {shadow(name) for name in names}
        return Imported(weights, {name: tensor for name, tensor in tensors.items() if name not in used})

    def exported(self, weights: Tensors, kept: Tensors) -> dict[str, Tensor]:
        network = {name.removeprefix(self.ours): t for name, t in weights.items() if name.startswith(self.ours)}
        filled = {f"{EMA}decay": torch.tensor(0.9999), f"{EMA}num_updates": torch.tensor(0, dtype=torch.int32)}
        filled |= buffers() | {f"{NETWORK}{name}": t for name, t in network.items()}
        return filled | dict(kept) | {shadow(name): t for name, t in network.items()}


def square_target(space: Literal["pixels", "latents"], channels: int, side: int) -> TargetSpec:
    """The space of a generator whose file tells no more than these."""
    dtype: Literal["uint8", "float32"] = "uint8" if space == "pixels" else "float32"
    return TargetSpec(space=space, shape=(channels, side, side), dtype=dtype, n_codes=None, image_px=side)


def shadow(name: str) -> str:
    """Name of the averaged copy of a tensor of the network."""
    return EMA + f"diffusion_model.{name}".replace(".", "")


def buffers() -> dict[str, Tensor]:
    """The schedule as the reference stores it: twelve float32 vectors of 1000, computed in float64."""
    ab = alpha_bars(SCHEDULE)
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
