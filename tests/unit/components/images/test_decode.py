"""Decoding: real files of every mode that Pillow writes, and everything that is not a picture."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.errors import DataError
from components.images.config import DecodeRecipe
from components.images.decode import decode, square, window

PINK = (255, 0, 128)
RECIPE = DecodeRecipe(background=PINK, max_pixels=1_000_000)


def _save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _ramp(channels: int, h: int = 12, w: int = 16) -> np.ndarray:
    """Smooth, so that JPEG keeps it; every pixel different."""
    y, x = np.mgrid[0:h, 0:w]
    planes = [(10 * x + 3 * y) % 256, (255 - 9 * x - 2 * y) % 256, (5 * x + 11 * y) % 256, (17 * (x + y)) % 256]
    return np.stack(planes[:channels], -1).astype(np.uint8)


def _over(rgb: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int] = PINK) -> np.ndarray:
    """Alpha compositing by its formula, in floats."""
    a = alpha[..., None] / 255
    return rgb * a + np.array(background) * (1 - a)


def _pixels(data: bytes, recipe: DecodeRecipe = RECIPE) -> np.ndarray:
    image = decode(data, recipe)
    assert image.mode == "RGB"
    return np.asarray(image).astype(float)


RGB = Image.fromarray(_ramp(3))
GRAY = Image.fromarray(_ramp(1)[..., 0])
RGBA = Image.fromarray(_ramp(4), "RGBA")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "PPM", "BMP", "TIFF"])
def test_lossless_color_is_exact(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert (_pixels(_save(RGB, kind, **options)) == _ramp(3)).all()


@pytest.mark.parametrize("kind", ["PNG", "PPM", "BMP", "TIFF", "GIF"])
def test_gray_is_repeated(kind: str) -> None:
    assert (_pixels(_save(GRAY, kind)) == _ramp(1)).all()


def test_bilevel_is_black_and_white() -> None:
    bits = Image.fromarray(_ramp(1)[..., 0] > 100)
    assert (_pixels(_save(bits, "PNG")) == np.where(_ramp(1) > 100, 255, 0)).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_color_is_close(kind: str) -> None:
    assert np.abs(_pixels(_save(RGB, kind, quality=95)) - _ramp(3)).mean() < 6


def test_cmyk_is_converted() -> None:
    data = _save(RGB.convert("CMYK"), "JPEG", quality=98)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(_pixels(data) - _ramp(3)).mean() < 6


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_on_the_background(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    expected = _over(_ramp(3), _ramp(4)[..., 3])
    assert np.abs(_pixels(_save(RGBA, kind, **options)) - expected).max() <= 1


def test_gray_with_alpha_is_composited() -> None:
    data = _save(RGBA.convert("LA"), "PNG")
    gray = np.asarray(RGBA.convert("RGB").convert("L"))[..., None].repeat(3, -1)
    assert np.abs(_pixels(data) - _over(gray, _ramp(4)[..., 3])).max() <= 1


def test_a_palette_with_one_transparent_color() -> None:
    image = RGB.quantize(16)
    indices = np.asarray(image)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[indices == 3] = PINK
    assert (indices == 3).any()
    for kind in ("PNG", "GIF"):
        found = _pixels(_save(image, kind, transparency=3))
        assert np.abs(found - expected).max() <= (0 if kind == "PNG" else 8), kind


def test_a_palette_with_half_transparent_colors_is_composited_before_anything_is_blended() -> None:
    image = RGB.quantize(4)
    alphas = np.array([0, 85, 170, 255], np.uint8)
    rgb, alpha = np.asarray(image.convert("RGB")), alphas[np.asarray(image)]
    found = _pixels(_save(image, "PNG", transparency=alphas.tobytes()))
    assert np.abs(found - _over(rgb, alpha)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_color_key(mode: str) -> None:
    image = Image.new(mode, (6, 4), 0 if mode == "L" else (9, 9, 9))
    image.paste(200 if mode == "L" else (1, 2, 3), (2, 1, 5, 3))
    found = _pixels(_save(image, "PNG", transparency=0 if mode == "L" else (9, 9, 9)))
    assert (found[0, 0] == PINK).all()
    assert (found[1, 2] == ((200, 200, 200) if mode == "L" else (1, 2, 3))).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    wide = np.linspace(0, 65535, 12 * 16).reshape(12, 16).astype(np.uint16)
    found = _pixels(_save(Image.fromarray(wide), kind))
    assert np.abs(found - (wide / 257)[..., None]).max() <= 0.51
    assert np.unique(found).size > 150


def test_sixteen_bits_with_a_transparent_gray() -> None:
    wide = np.full((4, 4), 30000, np.uint16)
    wide[1, 1] = 777
    data = _save(Image.fromarray(wide), "PNG")
    at = data.index(b"IDAT") - 4
    body = b"tRNS" + struct.pack(">H", 777)
    keyed = data[:at] + struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body)) + data[at:]
    found = _pixels(keyed)
    assert (found[1, 1] == PINK).all()
    assert (found[0, 0] == round(30000 / 257)).all()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(DataError, match="no agreed range"):
        decode(_save(Image.new(mode, (4, 4), 7), "TIFF"), RECIPE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_gives_the_upright_picture(orientation: int) -> None:
    stored: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(np.ascontiguousarray(stored[orientation](_ramp(3))))
    assert (_pixels(_save(turned, "PNG", exif=exif)) == _ramp(3)).all()
    found = _pixels(_save(turned, "JPEG", quality=95, exif=exif))
    assert found.shape == (12, 16, 3)
    assert np.abs(found - _ramp(3)).mean() < 6


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_only_the_first_frame_counts(kind: str) -> None:
    other = Image.new("RGB", RGB.size, (0, 255, 0))
    options = {"lossless": True} if kind == "WEBP" else {}
    first = Image.new("RGB", RGB.size, (250, 10, 20))
    data = _save(first, kind, save_all=True, append_images=[other], **options)
    assert (_pixels(data) == (250, 10, 20)).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a picture"),
        (b"just some text, named .png by mistake", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (_save(RGB, "PNG")[:-60], "damaged"),
        (_save(RGB, "JPEG")[:-200], "damaged|not a picture"),
        (_save(RGB, "WEBP")[:-40], "damaged|not a picture"),
        (b"P5\n8 8\n255\nshort", "damaged"),
        (b"P5\n0 8\n255\n", "damaged|not a picture"),
    ],
)
def test_what_is_not_a_whole_picture_is_refused_with_the_same_words_every_time(data: bytes, reason: str) -> None:
    messages = set()
    for _ in range(2):
        with pytest.raises(DataError, match=reason) as caught:
            decode(data, RECIPE)
        messages.add(caught.value.what)
    assert len(messages) == 1
    assert "0x" not in messages.pop()


def test_a_flipped_byte_never_escapes_as_another_error() -> None:
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        good = _save(RGB, kind)
        for _ in range(60):
            bad = bytearray(good)
            for at in rng.integers(0, len(bad), 3):
                bad[at] ^= 1 << int(rng.integers(8))
            with contextlib.suppress(DataError):
                assert decode(bytes(bad), RECIPE).mode == "RGB"


def _bomb(width: int, height: int) -> bytes:
    """A PNG header that promises many pixels, and a tiny body."""

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(99))) + part(b"IEND", b"")


@pytest.mark.parametrize("size", [(1001, 1000), (10_000, 10_000), (60_000, 60_000)])
def test_a_bomb_is_refused_before_its_pixels_exist(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="max_pixels = 1000000"):
        decode(_bomb(*size), RECIPE)


def test_the_limit_itself_is_allowed() -> None:
    data = _save(Image.new("L", (1000, 1000)), "PNG")
    assert decode(data, RECIPE).size == (1000, 1000)
    with pytest.raises(DataError, match="1000 x 1000"):
        decode(data, RECIPE.model_copy(update={"max_pixels": 999_999}))


@pytest.mark.parametrize(("w", "h", "px"), [(16, 12, 6), (12, 16, 6), (20, 12, 24), (13, 13, 7), (60, 20, 10)])
def test_square_is_a_resize_and_a_center_crop(w: int, h: int, px: int) -> None:
    image = Image.fromarray(_ramp(3, h, w))
    scale = px / min(w, h)
    whole = np.asarray(image.resize((round(w * scale), round(h * scale)), Image.Resampling.BICUBIC)).astype(int)
    top, left = (whole.shape[0] - px) // 2, (whole.shape[1] - px) // 2
    assert np.abs(square(image, px) - whole[top : top + px, left : left + px]).max() <= 1


def test_a_margin_that_cannot_be_halved_shifts_nothing() -> None:
    assert (square(Image.fromarray(_ramp(3, 8, 13)), 8) == _ramp(3, 8, 13)[:, 2:10]).all()
    assert square(Image.new("RGB", (1, 40), PINK), 3).tolist() == [[list(PINK)] * 3] * 3


def test_square_at_its_own_size_keeps_every_byte() -> None:
    image = Image.fromarray(_ramp(3)[:, :12])
    assert (square(image, 12) == _ramp(3)[:, :12]).all()


def test_shrinking_is_antialiased() -> None:
    """A checkerboard of single pixels becomes gray, not a sample of black or white ones."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    found = square(Image.fromarray(board).convert("RGB"), 8)
    assert np.abs(found.astype(float) - 127.5).max() < 6


def test_a_window_shows_its_part() -> None:
    image = Image.fromarray(np.kron([[10, 200], [90, 250]], np.ones((8, 8))).astype(np.uint8)).convert("RGB")
    assert (window(image, (8, 0, 8), 4)[1, 2:] == 200).all()  # its edge blends with what lies beyond
    assert (window(image, (0, 8, 8), 8) == 90).all()
    assert (window(image, (1, 9, 6), 12)[3:, :-3] == 90).all()
