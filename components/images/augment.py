"""Seeded augmentations of image batches, vectorised: every image draws its own, from the rng that is passed in.

Each one maps float images (b, 3, h, w) in [0, 1] to the same range and shape.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional as tf

from components.config import Config
from components.rng import Rng

Images = Float[Tensor, "b 3 h w"]
Share = Annotated[float, Field(ge=0, le=1)]
Reach = Annotated[float, Field(ge=0)]


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the range {bounds} is empty; put the smaller number first")
    return bounds


Bounds = Annotated[tuple[Reach, Reach], AfterValidator(_rising)]
Above0 = Annotated[float, Field(gt=0)]
Positive = Annotated[tuple[Above0, Above0], AfterValidator(_rising)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_rising)]

_LUMA = (0.299, 0.587, 0.114)


class Augmentation(Config):
    """One random change of every image."""

    @classmethod
    @abstractmethod
    def tiny(cls) -> Self: ...

    @abstractmethod
    def apply(self, images: Images, rng: Rng) -> Images:
        """Shapes: rng.rows equals the batch."""


class Crop(Augmentation):
    """Random resized crop: a window of random area and aspect, stretched to the full frame.

    Differs: bilinear without antialias; torchvision's tries ten times to fit the window, here it is clipped to fit.
    """

    kind: Literal["crop"]
    area: Positive
    """Range of the window's share of the image."""
    aspect: Positive
    """Range of width / height, drawn log-uniformly."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="crop", area=(0.3, 1.0), aspect=(0.75, 1.33))

    def apply(self, images: Images, rng: Rng) -> Images:
        area, aspect = _between(self.area, rng), _between(_logs(self.aspect), rng).exp()
        half_w, half_h = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        center = (rng.uniform(2) * 2 - 1) * torch.stack([1 - half_w, 1 - half_h], 1)
        zero = torch.zeros_like(half_w)
        theta = torch.stack([half_w, zero, center[:, 0], zero, half_h, center[:, 1]], 1).reshape(-1, 2, 3)
        return _resample(images, theta, fill=None)


class Warp(Augmentation):
    """Random rotation, scale, shear, shift and a smooth elastic displacement, in one resampling."""

    kind: Literal["warp"]
    rotate_deg: Reach
    """Largest angle either way."""
    scale: Positive
    """Range of the magnification, drawn log-uniformly."""
    stretch: Reach
    """Largest log-ratio of the horizontal to the vertical magnification, either way."""
    shear: Reach
    """Largest horizontal shear either way, in image heights per image height."""
    shift: Reach
    """Largest shift either way along each axis, as a share of the side."""
    elastic: Reach
    """Standard deviation of the displacement at a 3 x 3 lattice, as a share of the side; 0 is none."""
    fill: Share | None
    """Gray value outside the frame; None repeats the edge."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="warp", rotate_deg=15, scale=(0.9, 1.1), stretch=0.1, shear=0.1, shift=0.1, elastic=0.03, fill=0.0
        )

    def apply(self, images: Images, rng: Rng) -> Images:
        angle = _symmetric(math.radians(self.rotate_deg), rng)
        size = _between(_logs(self.scale), rng)
        stretch, shear = _symmetric(self.stretch, rng) / 2, _symmetric(self.shear, rng)
        shift = (rng.uniform(2) * 2 - 1) * self.shift * 2  # the frame is 2 wide in sampling coordinates
        cos, sin = angle.cos(), angle.sin()
        x_scale, y_scale = (-size - stretch).exp(), (-size + stretch).exp()
        rows = [x_scale * cos, x_scale * (shear * cos - sin), shift[:, 0], y_scale * sin]
        rows += [y_scale * (shear * sin + cos), shift[:, 1]]
        theta = torch.stack(rows, 1).reshape(-1, 2, 3)
        bend = None
        if self.elastic > 0:
            lattice = rng.normal(2, 3, 3) * (2 * self.elastic)
            bend = tf.interpolate(lattice, images.shape[-2:], mode="bicubic", align_corners=True)
        return _resample(images, theta, fill=self.fill, bend=bend)


class Flip(Augmentation):
    """Mirror left and right. Not for digits or letters."""

    kind: Literal["flip"]
    prob: Share

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="flip", prob=0.5)

    def apply(self, images: Images, rng: Rng) -> Images:
        return _sometimes(images, images.flip(-1), self.prob, rng)


class ColorJitter(Augmentation):
    """Random brightness, contrast, saturation and hue, in this order.

    Differs: torchvision shuffles the order; hue is a rotation about the gray axis instead of a trip through HSV.
    """

    kind: Literal["color_jitter"]
    prob: Share
    brightness: Reach
    """Factors are drawn from 1 - x to 1 + x; so for contrast and saturation."""
    contrast: Reach
    saturation: Reach
    hue: Reach
    """Largest turn either way, in full turns (0.5 reaches the complementary color)."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="color_jitter", prob=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)

    def apply(self, images: Images, rng: Rng) -> Images:
        out = (images * _factor(self.brightness, rng)).clamp(0, 1)
        mean = _gray(out).mean((1, 2, 3), keepdim=True)
        out = (mean + (out - mean) * _factor(self.contrast, rng)).clamp(0, 1)
        gray = _gray(out)
        out = (gray + (out - gray) * _factor(self.saturation, rng)).clamp(0, 1)
        out = _turn_hue(out, _symmetric(self.hue * 2 * math.pi, rng)).clamp(0, 1)
        return _sometimes(images, out, self.prob, rng)


class Grayscale(Augmentation):
    """Drop the color: all three channels become the luma."""

    kind: Literal["grayscale"]
    prob: Share

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="grayscale", prob=0.2)

    def apply(self, images: Images, rng: Rng) -> Images:
        return _sometimes(images, _gray(images).expand_as(images), self.prob, rng)


class Blur(Augmentation):
    """Gaussian blur of random width."""

    kind: Literal["blur"]
    prob: Share
    sigma_px: Positive

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="blur", prob=0.5, sigma_px=(0.1, 1.0))

    def apply(self, images: Images, rng: Rng) -> Images:
        b, c, h, w = images.shape
        reach = min(math.ceil(2 * self.sigma_px[1]), min(h, w) - 1)
        offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        sigma = _between(self.sigma_px, rng)
        kernel = torch.softmax(-0.5 * (offsets / sigma[:, None]).square(), 1).repeat_interleave(c, 0)  # (b c, taps)
        planes = images.reshape(1, b * c, h, w)
        planes = tf.pad(planes, (reach, reach, 0, 0), mode="replicate")
        planes = tf.conv2d(planes, kernel[:, None, None, :], groups=b * c)
        planes = tf.pad(planes, (0, 0, reach, reach), mode="replicate")
        blurred = tf.conv2d(planes, kernel[:, None, :, None], groups=b * c).reshape(b, c, h, w)
        return _sometimes(images, blurred, self.prob, rng)


class Solarize(Augmentation):
    """Invert everything brighter than a threshold."""

    kind: Literal["solarize"]
    prob: Share
    threshold: Share

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="solarize", prob=0.2, threshold=0.5)

    def apply(self, images: Images, rng: Rng) -> Images:
        return _sometimes(images, torch.where(images >= self.threshold, 1 - images, images), self.prob, rng)


class Noise(Augmentation):
    """Gaussian noise, equal in all channels, of a strength drawn per image."""

    kind: Literal["noise"]
    std: Bounds

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="noise", std=(0.0, 0.1))

    def apply(self, images: Images, rng: Rng) -> Images:
        strength = _between(self.std, rng)[:, None, None, None]
        return (images + strength * rng.normal(1, *images.shape[-2:])).clamp(0, 1)


class Erase(Augmentation):
    """Paint over one rectangle."""

    kind: Literal["erase"]
    prob: Share
    side: Shares
    """Range of the rectangle's height and width, each as a share of the image's."""
    fill: Share

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="erase", prob=0.5, side=(0.1, 0.4), fill=0.0)

    def apply(self, images: Images, rng: Rng) -> Images:
        low, high = self.side
        size = low + (high - low) * rng.uniform(2)
        start = rng.uniform(2) * (1 - size)
        inside_y = _covered(images.shape[-2], start[:, 0], size[:, 0])[:, None, :, None]
        inside_x = _covered(images.shape[-1], start[:, 1], size[:, 1])[:, None, None, :]
        return _sometimes(images, images.masked_fill(inside_y & inside_x, self.fill), self.prob, rng)


AugmentConfig = Annotated[
    Crop | Warp | Flip | ColorJitter | Grayscale | Blur | Solarize | Noise | Erase, Field(discriminator="kind")
]


def augment(images: Images, steps: Sequence[AugmentConfig], rng: Rng) -> Images:
    """Apply every step in order. Same rng, same result."""
    for step in steps:
        images = step.apply(images, rng)
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
