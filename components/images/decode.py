"""Bytes of a picture file -> upright RGB. What comes from outside is never trusted: limits first, then pixels."""

import io
import re
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from components.errors import DataError
from components.images.config import DecodeRecipe

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "PPM", "BMP", "TIFF")
_WIDE_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_FORMATS_OF_WIDE_I = frozenset({"PNG", "PPM"})


def decode(data: bytes, recipe: DecodeRecipe) -> Image.Image:
    """First frame, rotated as its EXIF says, alpha composited on the background, 16 bits scaled to 8: mode RGB.

    Raises: DataError with the reason, always the same for the same bytes.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            if file.width * file.height > recipe.max_pixels:
                raise DataError(_too_large(file.size, recipe))
            file.load()
            return _to_rgb(ImageOps.exif_transpose(file), recipe.background, file.format)
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"not a picture ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(None, recipe)) from error
    except Exception as error:  # decoders raise anything at all on damaged bytes
        reason = re.sub(r"\s*<[^>]* at 0x[0-9a-f]+>|0x[0-9a-f]{6,}", "", str(error)) or type(error).__name__
        raise DataError(f"damaged: {reason}") from error


def square(image: Image.Image, px: int) -> np.ndarray:
    """Shorter side to px (bicubic, antialiased), center crop. Shapes: RGB image -> (px, px, 3) uint8."""
    return window(image, center_square(image), px)


def center_square(image: Image.Image) -> tuple[int, int, int]:
    """(left, top, side), in whole pixels so that a picture of the right size keeps its bytes."""
    side = min(image.size)
    return (image.width - side) // 2, (image.height - side) // 2, side


def window(image: Image.Image, where: tuple[float, float, float], px: int) -> np.ndarray:
    """The square (left, top, side), in pixels of the image, at px. Shapes: RGB image -> (px, px, 3) uint8."""
    left, top, side = where
    box = (left, top, min(left + side, image.width), min(top + side, image.height))
    return np.asarray(image.resize((px, px), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))


def _too_large(size: tuple[int, int] | None, recipe: DecodeRecipe) -> str:
    got = f"{size[0]} x {size[1]} = {size[0] * size[1]} pixels" if size else "far too many pixels"
    return f"{got}, above collect.decode.max_pixels = {recipe.max_pixels}"


def _to_rgb(image: Image.Image, background: tuple[int, int, int], file_format: str | None) -> Image.Image:
    if image.mode in _WIDE_MODES:
        image = _narrow(image, file_format)
    if image.mode == "F":
        raise DataError("floating-point pixels have no agreed range")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image).convert("RGB")


def _narrow(image: Image.Image, file_format: str | None) -> Image.Image:
    """16-bit gray to 8 bits; a transparent gray value becomes an alpha channel."""
    if image.mode == "I" and file_format not in _FORMATS_OF_WIDE_I:
        raise DataError("32-bit integer pixels have no agreed range")
    wide = np.asarray(image).astype(np.int64).clip(0, 65535)
    gray = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    key: Any = image.info.get("transparency")
    if isinstance(key, int):
        gray.putalpha(Image.fromarray(np.where(wide == key, 0, 255).astype(np.uint8)))
    return gray
