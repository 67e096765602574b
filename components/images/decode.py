"""Bytes of a picture file -> upright RGB. What comes from outside is never trusted: limits first, then pixels."""

import io
import re
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from components.errors import DataError
from components.images.color import to_srgb
from components.images.config import DecodeRecipe
from components.images.png import SIGNATURE, without_remarks

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "PPM", "BMP", "TIFF", "AVIF")
IGNORED_PROFILE = "ignored_profile"
"""In the info of a decoded picture whose color profile could not be used."""
_WIDE_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_FILLER = 4096
"""Bytes that stand for those that a JPEG lacks at its end."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FORMATS_OF_WIDE_I = frozenset({"PNG", "PPM"})


def decode(data: bytes, recipe: DecodeRecipe) -> Image.Image:
    """First frame, rotated as its EXIF says, in sRGB, alpha laid on the background, 16 bits scaled to 8: mode RGB.

    Raises: DataError with the reason, always the same for the same bytes.
    """
    try:
        if data.startswith(SIGNATURE):
            data = without_remarks(data)
        try:
            return _decode(data, recipe)
        except OSError:
            if not data.startswith(_JPEG):
                raise
            return _decode(_ended(data, recipe), recipe)
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"not a picture ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(None, recipe)) from error
    except Exception as error:  # decoders raise anything at all on damaged bytes
        reason = re.sub(r"\s*<[^>]* at 0x[0-9a-f]+>|0x[0-9a-f]{6,}", "", str(error)) or type(error).__name__
        raise DataError(f"damaged: {reason}") from error


def _decode(data: bytes, recipe: DecodeRecipe) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        if file.width * file.height > recipe.max_pixels:
            raise DataError(_too_large(file.size, recipe))
        file.load()
        return _to_rgb(_upright(file), recipe.background, file.format)


def _ended(jpeg: bytes, recipe: DecodeRecipe) -> bytes:
    """A JPEG that lacks its end marker, with one. Raises: OSError when rows are missing, too.

    What is missing is decoded from the bits that follow: nothing is if it does not matter which these are.
    """
    start = jpeg.rstrip(b"\xff")
    ends = [start + bits * _FILLER + _JPEG_END for bits in (b"\x55", b"\xaa")]
    one, other = (_decode(end, recipe).tobytes() for end in ends)
    if one != other:
        raise OSError("the file ends before its last row")
    return ends[0]


def _upright(image: Image.Image) -> Image.Image:
    """Only the orientation is read of the EXIF data and nothing is written back: what is odd in it costs nothing."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # readers raise anything at all on odd data
        return image
    return image if turn is None else image.transpose(turn)


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
    profile = image.info.get("icc_profile")
    info: dict[str | tuple[int, int], Any] = {}
    if image.mode in _WIDE_MODES:
        image = _narrow(image, file_format)
    if image.mode == "F":
        raise DataError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        image = image.convert("RGBA") if image.mode != "LA" else image
    elif image.mode not in ("L", "CMYK"):
        image = image.convert("RGB")
    if profile:
        try:
            image = to_srgb(image, profile)
        except ImageCms.PyCMSError:
            info = {IGNORED_PROFILE: True}
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image.convert("RGBA"))
    image = image.convert("RGB")
    image.info = info
    return image


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
