"""Wrappers around a denoiser: guidance and constraints. prediction = cond + g (cond - uncond); g = 0 is off."""

import torch
from torch import Tensor

from components.base import Batch
from components.diffusion.samplers import Denoiser


def classifier_free(denoise: Denoiser, scale: float, null: Batch) -> Denoiser:
    """Push away from what the denoiser would say without the condition; both halves run as one batch of 2b.

    `null` holds the unconditional rows for the keys that differ. Guiding x0 is guiding eps or v: they are affine in
    each other with equal coefficients on both halves. Paper: 2207.12598, eq. 6 with w = scale.
    """

    def guided(x_t: Tensor, t: int, batch: Batch) -> Tensor:
        both = {key: torch.cat([rows, null.get(key, rows)]) for key, rows in batch.items()}
        cond, uncond = denoise(torch.cat([x_t, x_t]), t, both).chunk(2)
        return cond + scale * (cond - uncond)

    return guided


def clamped(denoise: Denoiser, low: float, high: float) -> Denoiser:
    """Keep x0 inside the range of the data; wrap it around guidance, which overshoots."""

    def inside(x_t: Tensor, t: int, batch: Batch) -> Tensor:
        return denoise(x_t, t, batch).clamp(low, high)

    return inside
