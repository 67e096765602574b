"""Seeded augmentations of image batches, vectorised: every image draws its own, from the rng that is passed in.

Each one maps float images (b, 3, h, w) in [0, 1] to the same range and shape.
"""

import math
from collections.abc import Sequence
from functools import singledispatch

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as tf

from components.images.config import (
    AugmentConfig,
    Blur,
    ColorJitter,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Noise,
    Solarize,
    Warp,
)
from components.rng import Rng

Images = Float[Tensor, "b 3 h w"]


_LUMA = (0.299, 0.587, 0.114)


@singledispatch
def apply(step: AugmentConfig, images: Images, rng: Rng) -> Images:
    """One step. Shapes: rng.rows equals the batch."""
    raise NotImplementedError(type(step).__name__)


@apply.register
def _crop(step: Crop, images: Images, rng: Rng) -> Images:
    area, aspect = _between(step.area, rng), _between(_logs(step.aspect), rng).exp()
    half_w, half_h = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    center = (rng.uniform(2) * 2 - 1) * torch.stack([1 - half_w, 1 - half_h], 1)
    zero = torch.zeros_like(half_w)
    theta = torch.stack([half_w, zero, center[:, 0], zero, half_h, center[:, 1]], 1).reshape(-1, 2, 3)
    return _resample(images, theta, fill=None)


@apply.register
def _warp(step: Warp, images: Images, rng: Rng) -> Images:
    angle = _symmetric(math.radians(step.rotate_deg), rng)
    size = _between(_logs(step.scale), rng)
    stretch, shear = _symmetric(step.stretch, rng) / 2, _symmetric(step.shear, rng)
    shift = (rng.uniform(2) * 2 - 1) * step.shift * 2  # the frame is 2 wide in sampling coordinates
    cos, sin = angle.cos(), angle.sin()
    x_scale, y_scale = (-size - stretch).exp(), (-size + stretch).exp()
    rows = [x_scale * cos, x_scale * (shear * cos - sin), shift[:, 0], y_scale * sin]
    rows += [y_scale * (shear * sin + cos), shift[:, 1]]
    theta = torch.stack(rows, 1).reshape(-1, 2, 3)
    bend = None
    if step.elastic > 0:
        lattice = rng.normal(2, 3, 3) * (2 * step.elastic)
        bend = tf.interpolate(lattice, images.shape[-2:], mode="bicubic", align_corners=True)
    return _resample(images, theta, fill=step.fill, bend=bend)


@apply.register
def _flip(step: Flip, images: Images, rng: Rng) -> Images:
    return _sometimes(images, images.flip(-1), step.prob, rng)


@apply.register
def _color_jitter(step: ColorJitter, images: Images, rng: Rng) -> Images:
    out = (images * _factor(step.brightness, rng)).clamp(0, 1)
    mean = _gray(out).mean((1, 2, 3), keepdim=True)
    out = (mean + (out - mean) * _factor(step.contrast, rng)).clamp(0, 1)
    gray = _gray(out)
    out = (gray + (out - gray) * _factor(step.saturation, rng)).clamp(0, 1)
    out = _turn_hue(out, _symmetric(step.hue * 2 * math.pi, rng)).clamp(0, 1)
    return _sometimes(images, out, step.prob, rng)


@apply.register
def _grayscale(step: Grayscale, images: Images, rng: Rng) -> Images:
    return _sometimes(images, _gray(images).expand_as(images), step.prob, rng)


@apply.register
def _blur(step: Blur, images: Images, rng: Rng) -> Images:
    b, c, h, w = images.shape
    reach = min(math.ceil(2 * step.sigma_px[1]), min(h, w) - 1)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    sigma = _between(step.sigma_px, rng)
    kernel = torch.softmax(-0.5 * (offsets / sigma[:, None]).square(), 1).repeat_interleave(c, 0)  # (b c, taps)
    planes = images.reshape(1, b * c, h, w)
    planes = tf.pad(planes, (reach, reach, 0, 0), mode="replicate")
    planes = tf.conv2d(planes, kernel[:, None, None, :], groups=b * c)
    planes = tf.pad(planes, (0, 0, reach, reach), mode="replicate")
    blurred = tf.conv2d(planes, kernel[:, None, :, None], groups=b * c).reshape(b, c, h, w)
    return _sometimes(images, blurred, step.prob, rng)


@apply.register
def _solarize(step: Solarize, images: Images, rng: Rng) -> Images:
    return _sometimes(images, torch.where(images >= step.threshold, 1 - images, images), step.prob, rng)


@apply.register
def _noise(step: Noise, images: Images, rng: Rng) -> Images:
    strength = _between(step.std, rng)[:, None, None, None]
    return (images + strength * rng.normal(1, *images.shape[-2:])).clamp(0, 1)


@apply.register
def _erase(step: Erase, images: Images, rng: Rng) -> Images:
    low, high = step.side
    size = low + (high - low) * rng.uniform(2)
    start = rng.uniform(2) * (1 - size)
    inside_y = _covered(images.shape[-2], start[:, 0], size[:, 0])[:, None, :, None]
    inside_x = _covered(images.shape[-1], start[:, 1], size[:, 1])[:, None, None, :]
    return _sometimes(images, images.masked_fill(inside_y & inside_x, step.fill), step.prob, rng)


def augment(images: Images, steps: Sequence[AugmentConfig], rng: Rng) -> Images:
    """Apply every step in order. Same rng, same result."""
    for step in steps:
        images = apply(step, images, rng)
    return images


def _between(bounds: tuple[float, float], rng: Rng) -> Float[Tensor, " b"]:
    return bounds[0] + (bounds[1] - bounds[0]) * rng.uniform()


def _symmetric(limit: float, rng: Rng) -> Float[Tensor, " b"]:
    return (rng.uniform() * 2 - 1) * limit


def _factor(reach: float, rng: Rng) -> Float[Tensor, "b 1 1 1"]:
    return (1 + _symmetric(reach, rng)).clamp(min=0)[:, None, None, None]


def _logs(bounds: tuple[float, float]) -> tuple[float, float]:
    return math.log(bounds[0]), math.log(bounds[1])


def _sometimes(images: Images, changed: Images, prob: float, rng: Rng) -> Images:
    return torch.where((rng.uniform() < prob)[:, None, None, None], changed, images)


def _gray(images: Images) -> Float[Tensor, "b 1 h w"]:
    return (images * images.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def _covered(n: int, start: Tensor, size: Tensor) -> Tensor:
    """Which of n pixel centers lie in [start, start + size) of the unit interval. Shapes: (b,), (b,) -> (b, n)."""
    centers = (torch.arange(n, device=start.device) + 0.5) / n
    return (centers >= start[:, None]) & (centers < (start + size)[:, None])


def _resample(images: Images, theta: Tensor, *, fill: float | None, bend: Tensor | None = None) -> Images:
    """Read every pixel at theta (b, 2, 3) of its place, plus bend (b, 2, h, w); outside: fill, or the edge repeated."""
    grid = tf.affine_grid(theta, list(images.shape), align_corners=False)
    if bend is not None:
        grid = grid + bend.permute(0, 2, 3, 1)
    if fill is None:
        return tf.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return tf.grid_sample(images - fill, grid, padding_mode="zeros", align_corners=False) + fill


def _turn_hue(images: Images, angle: Float[Tensor, " b"]) -> Images:
    """Rotate RGB about the gray axis (Rodrigues): gray stays, so does the sum of the channels."""
    cos, sin = angle.cos(), angle.sin()
    same, side = cos + (1 - cos) / 3, sin / math.sqrt(3)
    left, right = (1 - cos) / 3 - side, (1 - cos) / 3 + side
    turn = torch.stack([same, left, right, right, same, left, left, right, same], 1).reshape(-1, 3, 3)
    return torch.einsum("bij,bjhw->bihw", turn, images)
