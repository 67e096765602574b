"""Wrappers around a denoiser: guidance and constraints, to be put around each other in any order that makes sense.

prediction = cond + g (cond - uncond); g = 0 is off.
"""

import torch
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.samplers import Denoised, Denoiser


def classifier_free(denoise: Denoiser, scale: float) -> Denoiser:
    """Push away from the guess without the condition; both halves run as one batch of 2b.

    The guided denoiser takes ports of 2b examples, the nulls in the second half (Ports.beside). The variance is that of
    the first. Guiding x0 is guiding eps or v: they are affine in each other with equal coefficients on both halves.
    Paper: 2207.12598, eq. 6 with w = scale.
    """

    def guided(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        both = denoise(torch.cat([x_t, x_t]), t, ports)
        cond, uncond = both.x0.chunk(2)
        log_variance = None if both.log_variance is None else both.log_variance[: len(x_t)]
        return Denoised(cond + scale * (cond - uncond), log_variance)

    return guided


def clamped(denoise: Denoiser, low: float, high: float) -> Denoiser:
    """Keep x0 inside the range of the data; wrap it around guidance, which overshoots."""

    def inside(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        guess = denoise(x_t, t, ports)
        return guess._replace(x0=guess.x0.clamp(low, high))

    return inside
