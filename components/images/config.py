"""Configs of what is done to pixels: reading a file, the views that encode caches, augmentations."""

from abc import abstractmethod
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from components.config import Config

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


class Augmentation(Config):
    """One random change of every image."""

    @classmethod
    @abstractmethod
    def tiny(cls) -> Self: ...


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


class Flip(Augmentation):
    """Mirror left and right. Not for digits or letters."""

    kind: Literal["flip"]
    prob: Share

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="flip", prob=0.5)


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


class Grayscale(Augmentation):
    """Drop the color: all three channels become the luma."""

    kind: Literal["grayscale"]
    prob: Share

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="grayscale", prob=0.2)


class Blur(Augmentation):
    """Gaussian blur of random width."""

    kind: Literal["blur"]
    prob: Share
    sigma_px: Positive

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="blur", prob=0.5, sigma_px=(0.1, 1.0))


class Solarize(Augmentation):
    """Invert everything brighter than a threshold."""

    kind: Literal["solarize"]
    prob: Share
    threshold: Share

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="solarize", prob=0.2, threshold=0.5)


class Noise(Augmentation):
    """Gaussian noise, equal in all channels, of a strength drawn per image."""

    kind: Literal["noise"]
    std: Bounds

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="noise", std=(0.0, 0.1))


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


AugmentConfig = Annotated[
    Crop | Warp | Flip | ColorJitter | Grayscale | Blur | Solarize | Noise | Erase, Field(discriminator="kind")
]


DECODE_VERSION = 2
"""Rises when equal files become other pixels; 2: color profiles are converted, odd files are taken."""
MOST_PIXELS = 89_000_000  # a little above, Pillow itself begins to complain
_REMARKS = 16 << 20  # a file may hold so many bytes of text, profiles and thumbnails beside its pixels
_BYTES_PER_PIXEL = 16  # no picture file needs more, so a bigger file is not worth reading


class DecodeRecipe(Config):
    """How files become pixels; part of the identity of everything made of them."""

    background: tuple[int, int, int] = Field(min_length=3, max_length=3)
    """RGB 0..255 that transparent pictures are laid on."""
    max_pixels: int = Field(ge=1, le=MOST_PIXELS)
    """Pictures with more pixels are rejected before any is decoded."""

    def max_bytes(self) -> int:
        """Bigger files are rejected unread."""
        return _BYTES_PER_PIXEL * self.max_pixels + _REMARKS


class ViewRecipe(Config):
    """View 0 is the plain center square of every picture; the others are random crops of it, of train pictures only."""

    seed: int = Field(ge=0)
    """Seed of the random views."""
    n_views: int = Field(ge=1)
    """Views per train picture. The reference draws a new view at every step; here training chooses among these."""
    crop_area: tuple[float, float]
    """Range of the share of the center square that a random view shows: (1, 1) is no crop."""
    flip_prob: float = Field(ge=0, le=1)
    """Share of the random views that are mirrored. 0 for digits or letters."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(seed=0, n_views=2, crop_area=(0.8, 1.0), flip_prob=0.5)

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area must be two shares with 0 < low <= high <= 1, not {self.crop_area}")
        if self.n_views > 1 and low == 1 and self.flip_prob == 0:
            raise ValueError(f"all {self.n_views} views would be equal: set n_views: 1, or crop_area or flip_prob")
        return self
