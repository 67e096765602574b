"""Color profiles: a picture's pixels as sRGB, which is what everything after decoding takes them for."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
"""Mode of an image -> the color space that its profile must be of."""
_SRGB_LEVELS = 2
"""A profile that moves no color further than this is sRGB, and moves none."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The image, of mode L, LA, RGB, RGBA or CMYK, as RGB or RGBA; as it is where the profile is sRGB's.

    Raises: ImageCms.PyCMSError for a profile that is damaged or of another color space.
    """
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    color = image.convert(image.mode.removesuffix("A")) if alpha is not None else image
    transform = _transform(profile, color.mode)
    if transform is None:
        return image
    found = transform.apply(color)
    if alpha is not None:
        found.putalpha(alpha)
    return found


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the profile's colors to sRGB's; None if they are the same."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except OSError as error:
        raise ImageCms.PyCMSError(error) from error
    if mode not in _SPACES or source.profile.xcolor_space.strip() != _SPACES[mode]:
        raise ImageCms.PyCMSError(f"a profile for {source.profile.xcolor_space.strip()}, in a picture of mode {mode}")
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return transform
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    probe = Image.fromarray(cube if mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
    moved = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    return transform if np.abs(moved).max() > _SRGB_LEVELS else None
