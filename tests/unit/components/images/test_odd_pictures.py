"""Files that people have: odd, but pictures. Those of other people's reports: test_collect.py beside the stage."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from components.errors import DataError
from components.images.config import DecodeRecipe
from components.images.decode import decode

RECIPE = DecodeRecipe(background=(255, 255, 255), max_pixels=1_000_000)
Y, X = np.mgrid[0:64, 0:96]
PIXELS = np.stack([X * 2.6, Y * 3.9, 255 - X * 2.6], -1).clip(0, 255).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 255, (128, 160, 3)).astype(np.uint8)


def _saved(pixels: np.ndarray, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **how)
    return buffer.getvalue()


def _found(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, RECIPE))


def _text(size: int, *, packed: bool) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * size, zip=packed)
    return info


def _with_flipped_crc(png: bytes, kind: bytes) -> bytes:
    at = png.find(kind)
    (length,) = struct.unpack(">I", png[at - 4 : at])
    bad = bytearray(png)
    bad[at + 4 + length] ^= 1
    return bytes(bad)


def _with_exif(jpeg: bytes, *entries: tuple[int, int, bytes]) -> bytes:
    """entries: tag, type, 4 bytes of one value."""
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    tiff += b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries) + bytes(4)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize(
    "data",
    [
        _saved(PIXELS, "PNG", pnginfo=_text(3_000_000, packed=True)),
        _saved(PIXELS, "PNG", pnginfo=_text(3_000_000, packed=False)),
        _saved(PIXELS, "PNG", icc_profile=bytes(3_000_000)),
        _with_flipped_crc(_saved(PIXELS, "PNG", pnginfo=_text(3, packed=False)), b"tEXt"),
        _with_flipped_crc(_saved(PIXELS, "PNG", icc_profile=bytes(300)), b"iCCP"),
    ],
)
def test_a_chunk_that_no_pixel_needs_costs_no_picture(data: bytes) -> None:
    assert (_found(data) == PIXELS).all()


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_pixels_with_a_wrong_checksum_are_refused_by_the_chunks_name(kind: bytes) -> None:
    with pytest.raises(DataError, match=f"damaged: .*{kind.decode()}"):
        _found(_with_flipped_crc(_saved(PIXELS, "PNG"), kind))


def test_a_transparent_color_with_a_wrong_checksum_is_not_believed() -> None:
    with pytest.raises(DataError, match="tRNS"):
        _found(_with_flipped_crc(_saved(PIXELS, "PNG", transparency=(9, 9, 9)), b"tRNS"))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's word while it opens the file
def test_the_orientation_counts_though_the_rest_of_the_exif_is_odd() -> None:
    odd, turned = (0x102, 8, struct.pack("<hH", -1, 0)), (0x112, 3, struct.pack("<HH", 6, 0))
    jpeg = _saved(PIXELS, "JPEG", quality=90)
    upright = np.rot90(_found(jpeg), -1)
    for entries in [(odd, turned), (turned,)]:
        assert (_found(_with_exif(jpeg, *entries)) == upright).all()
    assert (_found(_with_exif(jpeg, odd)) == _found(jpeg)).all()
    unreadable = b"\xff\xe1" + struct.pack(">H", 40) + b"Exif\0\0" + b"II*\0" + bytes([255] * 28)
    assert (_found(jpeg[:2] + unreadable + jpeg[2:]) == _found(jpeg)).all()


@pytest.mark.parametrize("how", [{"quality": 90}, {"quality": 90, "progressive": True}])
def test_a_jpeg_without_its_end_is_taken_when_every_row_is_there(how: dict[str, Any]) -> None:
    jpeg = _saved(NOISE, "JPEG", **how)
    for n in (1, 2):
        assert (_found(jpeg[:-n]) == _found(jpeg)).all()
    for n in (4, 12, 40, 400, len(jpeg) // 2):
        with pytest.raises(DataError, match="damaged"):
            _found(jpeg[:-n])


def test_avif_is_a_picture_whatever_its_suffix_says() -> None:
    assert np.abs(_found(_saved(PIXELS, "AVIF", quality=95)).astype(int) - PIXELS).mean() < 6
