"""Samplers: pure functions that walk a denoiser from noise to data.

x_t: noisy sample, x0: the denoiser's guess of the clean one, ab: alpha-bar_t. Every coefficient is a host float, in
float64, so that a step never waits for the device.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.process import Step
from components.rng import Rng


class Denoised(NamedTuple):
    """What a denoiser makes of x_t."""

    x0: Tensor
    """Guess of the clean sample."""
    log_variance: Tensor | None
    """Of the step from t, where it is learned and the step does not end on the data."""


Denoiser = Callable[[Tensor, int, Ports], Denoised]
"""(x_t, t, conditions) -> guess; t is one host integer, as all rows of a sampler walk together."""


def ddim(denoise: Denoiser, x_t: Tensor, ports: Ports, steps: Sequence[Step], *, eta: float, rng: Rng) -> Tensor:
    """Denoising diffusion implicit model; eta 0 is deterministic, eta 1 is ancestral.

    Noise is sampled only where sigma > 0.

    Paper: 2010.02502, eq. 12 and 16.
    """
    for step in steps:
        ab, ab_prev = step.ab, step.ab_prev
        x0 = denoise(x_t, step.t, ports).x0
        eps = (x_t / math.sqrt(ab) - x0) / math.sqrt(1 / ab - 1)
        sigma = eta * math.sqrt((1 - ab_prev) / (1 - ab) * (1 - ab / ab_prev))
        x_t = math.sqrt(ab_prev) * x0 + math.sqrt(max(1 - ab_prev - sigma**2, 0.0)) * eps
        if sigma > 0:
            x_t = x_t + sigma * rng.normal(*x_t.shape[1:])
    return x_t


def ancestral(denoise: Denoiser, x_t: Tensor, ports: Ports, steps: Sequence[Step], *, rng: Rng) -> Tensor:
    """Sample each x_prev from the posterior q(x_prev | x_t, x0) of the respaced chain; the last step adds no noise.

    Its variance is beta-tilde, or the learned one.

    Paper: 2006.11239, eq. 6 and 7; respacing and learned variance 2102.09672, sec. 4 and eq. 15.
    """
    for step in steps:
        ab, ab_prev = step.ab, step.ab_prev
        alpha = ab / ab_prev
        x0, log_variance = denoise(x_t, step.t, ports)
        mean = math.sqrt(ab_prev) * (1 - alpha) / (1 - ab) * x0 + math.sqrt(alpha) * (1 - ab_prev) / (1 - ab) * x_t
        if step.beta_tilde == 0:
            return mean
        std = math.sqrt(step.beta_tilde) if log_variance is None else (0.5 * log_variance).exp()
        x_t = mean + std * rng.normal(*x_t.shape[1:])
    return x_t


def dpm_solver_2m(denoise: Denoiser, x_t: Tensor, ports: Ports, steps: Sequence[Step]) -> Tensor:
    """DPM-Solver++(2M): a deterministic second-order multistep solver, good from 10 to 25 steps.

    l = log(alpha / sigma), h = its growth over a step, d = x0 extrapolated from the last two guesses. The first step,
    and the last one when it ends on the data (l infinite), are first order. Paper: 2211.01095, alg. 2.
    """
    last_x0: Tensor | None = None
    last_h = 0.0
    for step in steps:
        x0 = denoise(x_t, step.t, ports).x0
        if step.ab_prev >= 1:
            return x0
        h = _half_log_snr(step.ab_prev) - _half_log_snr(step.ab)
        d = x0
        if last_x0 is not None:
            ratio = h / (2 * last_h)
            d = (1 + ratio) * x0 - ratio * last_x0
        shrink = math.sqrt((1 - step.ab_prev) / (1 - step.ab))
        x_t = shrink * x_t - math.sqrt(step.ab_prev) * math.expm1(-h) * d
        last_x0, last_h = x0, h
    return x_t


Walk = Callable[[Tensor, Sequence[Step]], Tensor]
"""A sampler with its denoiser: x_t, steps -> the sample where they end."""


def repainted(walk: Walk, x_t: Tensor, steps: Sequence[Step], *, times: int, rng: Rng) -> Tensor:
    """Take every step so many times, with its noise added back in between: the parts of x_t come to agree.

    A multistep solver has but one step to look at, and is of first order then. Paper: 2201.09865, alg. 1 (RePaint),
    with jumps of one step.
    """
    if times == 1:
        return walk(x_t, steps)
    for step in steps:
        kept = step.ab / step.ab_prev
        for left in reversed(range(times)):
            x_prev = walk(x_t, (step,))
            if left:
                x_t = math.sqrt(kept) * x_prev + math.sqrt(1 - kept) * rng.normal(*x_t.shape[1:])
        x_t = x_prev
    return x_t


def _half_log_snr(ab: float) -> float:
    return 0.5 * (math.log(ab) - math.log1p(-ab))
