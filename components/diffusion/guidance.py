"""Wrappers around a denoiser: guidance and constraints, to be put around each other in any order that makes sense.

Of every scale 0 is off:
    classifier-free    cond + g (cond - uncond)          s of GLIDE and DiT, w of Imagen: g + 1; tau of Muse and RCG: g
    autoguidance       strong + g (strong - weak)        w of 2406.02507: g + 1
    by a guide         eps - s sigma_t grad log p(y | x_t)     s of ADM: s
Usual order, inner to outer: classifier-free or autoguidance, clamp, guide, what is known: a guided x0 leaves the range
of the data where there is much noise, and clamping it there would switch the guide off.

x_t: noisy sample, x0: guess of the clean one, ab: alpha-bar_t, sigma_t = sqrt(1 - ab), y: what a guide recognizes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from components.conditions.ports import Ports
from components.diffusion.process import Step
from components.diffusion.samplers import Denoised, Denoiser

Times = Container[int]
"""Diffusion times at which a guidance acts."""


class Guide(nn.Module, ABC):
    """p(y | x_t): recognizes something in noisy samples of a diffusion generator. Paper: 2105.05233 (ADM), sec. 4."""

    field: ClassVar[str]
    """What y is of a batch: class, representation or text."""

    @abstractmethod
    def log_likelihood(
        self, x_t: Float[Tensor, "b ..."], t: int, y: Int[Tensor, " b"] | Float[Tensor, "b dim"]
    ) -> Float[Tensor, " b"]:
        """log p(y | x_t) up to a constant, differentiable in x_t; 0 where y is class -1 or a vector of zeros, so that
        nothing guides such a row."""


def times_within(steps: Iterable[Step], interval: tuple[float, float] | None) -> frozenset[int]:
    """Times of the steps whose noise sqrt(1 - ab) / sqrt(ab) is above the lower end and at most the upper; None: all.

    Paper: 2404.07724.
    """
    low, high = interval or (0.0, math.inf)
    return frozenset(step.t for step in steps if low < step.noise <= high)


def classifier_free(denoise: Denoiser, scale: float, at: Times | None = None) -> Denoiser:
    """Push away from the guess without the condition; both halves run as one batch of 2b.

    The guided denoiser takes ports of 2b examples, the nulls in the second half (Ports.beside); at other times than
    `at` only the first half runs. The variance is that of the first. Guiding x0 is guiding eps or v: they are affine in
    each other with equal coefficients on both halves.
    Paper: 2207.12598, eq. 6 with w = scale.
    """

    def guided(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        if at is not None and t not in at:
            return denoise(x_t, t, ports.first(len(x_t)))
        both = denoise(torch.cat([x_t, x_t]), t, ports)
        cond, uncond = both.x0.chunk(2)
        log_variance = None if both.log_variance is None else both.log_variance[: len(x_t)]
        return Denoised(cond + scale * (cond - uncond), log_variance)

    return guided


def autoguided(denoise: Denoiser, weak: Callable[[Tensor, int], Denoised], scale: float, at: Times) -> Denoiser:
    """Push away from the guess of a weaker model of the same task, here an earlier state of the same training.

    Needs no condition and no dropout of one. `weak`: (x_t, t) -> guess. Paper: 2406.02507 with w = scale + 1.
    """

    def guided(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        guess = denoise(x_t, t, ports)
        if t not in at:
            return guess
        return guess._replace(x0=guess.x0 + scale * (guess.x0 - weak(x_t, t).x0))

    return guided


def guided_by(
    denoise: Denoiser, log_likelihood: Callable[[Tensor, int], Tensor], scale: float, ab: Mapping[int, float], at: Times
) -> Denoiser:
    """Follow a guide: x0 + s (1 - ab) / sqrt(ab) grad log p(y | x_t), that is eps - s sigma_t grad log p(y | x_t).

    With scale 1 and an exact guide, the denoiser without a condition becomes that of p(x0 | y). `log_likelihood`:
    (x_t, t) -> one number per example, for its y. `ab`: by time. Costs a forward and backward pass of the guide; works
    inside no_grad.
    Paper: 2105.05233 (ADM), alg. 2, for every sampler. Differs: alg. 1 moves the mean of an ancestral step by s V grad;
    this moves it by s beta / sqrt(alpha) grad, which for V = beta is the same to first order in beta.
    """

    def guided(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        guess = denoise(x_t, t, ports)
        if t not in at:
            return guess
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(log_likelihood(x, t).sum(), x)
        return guess._replace(x0=guess.x0 + scale * (1 - ab[t]) / math.sqrt(ab[t]) * gradient)

    return guided


def clamped(denoise: Denoiser, low: float, high: float) -> Denoiser:
    """Keep x0 inside the range of the data; wrap it around guidance, which overshoots."""

    def inside(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        guess = denoise(x_t, t, ports)
        return guess._replace(x0=guess.x0.clamp(low, high))

    return inside


def known(denoise: Denoiser, x0: Tensor, where: Tensor) -> Denoiser:
    """Put what is known in place of the guess; wrap it around everything else, so that nothing moves it.

    The noise of the known part follows, as a sampler works it out from x_t and the guess. A network that was not
    trained with known parts reads them through their noise only, so what it fills in is too loosely tied to them;
    repainted() mends most of that. Shapes: x0 as x_t; where: bool, broadcast over x_t. Paper: 2112.10741, sec. 2.4.
    """

    def replaced(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        guess = denoise(x_t, t, ports)
        return guess._replace(x0=torch.where(where, x0, guess.x0))

    return replaced


def consistent(denoise: Denoiser, small: Float[Tensor, "b c h w"]) -> Denoiser:
    """Move every guess so that the mean of each square of its pixels is a pixel of the small image.

    No guess comes to lie farther from any image with these means: it is the nearest one that has them. What remains to
    the network is the detail within a square. Paper: 2212.00490 (DDNM), eq. 13 for averages, without noise.
    """

    def moved(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        guess = denoise(x_t, t, ports)
        ratio = guess.x0.shape[-1] // small.shape[-1]
        off = small - avg_pool2d(guess.x0, ratio)
        return guess._replace(x0=guess.x0 + off.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3))

    return moved
