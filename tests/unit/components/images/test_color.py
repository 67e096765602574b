"""Color profiles: a picture becomes sRGB, as every viewer shows it."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from components.images.config import DecodeRecipe
from components.images.decode import IGNORED_PROFILE, decode
from tests.support.profiles import ADOBE_RGB, DISPLAY_P3, SRGB, Primaries, cmyk_profile, matrix_profile, to_xyz

RECIPE = DecodeRecipe(background=(255, 255, 255), max_pixels=1_000_000)
Y, X = np.mgrid[0:12, 0:16]
PIXELS = np.stack([15 * X + 9, 20 * Y + 12, 250 - 9 * X - 4 * Y], -1).astype(np.uint8)


def _saved(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def _found(image: Image.Image, profile: bytes, kind: str = "PNG", **how: Any) -> np.ndarray:
    return np.asarray(decode(_saved(image, kind, icc_profile=profile, **how), RECIPE)).astype(int)


def _by_formula(pixels: np.ndarray, primaries: Primaries, gamma: float) -> np.ndarray:
    """Through XYZ, clipped to sRGB's gamut, with sRGB's own curve. Shapes: (h, w, 3) uint8 -> (h, w, 3)."""
    linear = (pixels / 255) ** gamma @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).T
    linear = linear.clip(0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(curved * 255)


@pytest.mark.parametrize(("primaries", "gamma"), [(ADOBE_RGB, 2.2), (DISPLAY_P3, 2.2), (SRGB, 1.8)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_wide_gamuts_and_other_curves_are_converted(primaries: Primaries, gamma: float, kind: str) -> None:
    how = {"lossless": True} if kind == "WEBP" else {}
    found = _found(Image.fromarray(PIXELS), matrix_profile(primaries, gamma), kind, **how)
    assert np.abs(found - _by_formula(PIXELS, primaries, gamma)).max() <= 4
    assert np.abs(found - PIXELS).max() > 12


def test_a_profile_that_is_srgb_moves_no_byte() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (_found(Image.fromarray(PIXELS), profile) == PIXELS).all()


def test_alpha_is_laid_on_the_background_after_the_conversion() -> None:
    alpha = np.where(X < 8, 255, 0).astype(np.uint8)
    image = Image.fromarray(np.dstack([PIXELS, alpha]))
    found = _found(image, matrix_profile(ADOBE_RGB, 2.2))
    assert (found[:, 8:] == 255).all()
    assert np.abs(found - _by_formula(PIXELS, ADOBE_RGB, 2.2))[:, :8].max() <= 4


def test_colors_of_a_palette_are_converted() -> None:
    image = Image.fromarray(PIXELS).quantize(16)
    found = _found(image, matrix_profile(ADOBE_RGB, 2.2))
    assert np.abs(found - _by_formula(np.asarray(image.convert("RGB")), ADOBE_RGB, 2.2)).max() <= 4


def test_cmyk_is_shown_as_its_inks_print() -> None:
    inks = Image.new("CMYK", (8, 8), (80, 80, 80, 0))
    red, green, blue = _found(inks, cmyk_profile((200, 168, 128)), "TIFF")[0, 0]
    assert red > blue + 20 > green + 40  # pink ink, where plain CMYK would be gray
    assert np.ptp(_found(inks, b"", "TIFF")[0, 0]) == 0


@pytest.mark.parametrize(
    "profile", [b"no profile at all", matrix_profile(ADOBE_RGB, 2.2)[:200], cmyk_profile((200, 128, 128))]
)
def test_a_profile_that_is_damaged_or_of_another_space_is_ignored_and_said_so(profile: bytes) -> None:
    found = decode(_saved(Image.fromarray(PIXELS), "TIFF", icc_profile=profile), RECIPE)
    assert (np.asarray(found) == PIXELS).all()
    assert found.info[IGNORED_PROFILE]
    assert IGNORED_PROFILE not in decode(_saved(Image.fromarray(PIXELS)), RECIPE).info
