"""Pictures of pictures: a batch of images as one grid, and PNG bytes that depend on the pixels alone."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from components.errors import ShapeError

GAP = 2
BACKGROUND = 255
SHOWN_PX = 48  # smaller images are enlarged by a whole factor, so that an 8-pixel digit can be seen
MOST_PX = 160  # larger ones are shrunk by a whole factor, so that a grid of photos stays a few megabytes


def to_uint8(images: Float[Tensor, "b 3 h w"]) -> np.ndarray:
    """Rounded bytes, channels last. Shapes: (b, 3, h, w) in [0, 1] -> (b, h, w, 3) uint8."""
    scaled = (images.detach().to("cpu", torch.float32).clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).numpy())


def to_float(images: np.ndarray) -> Float[Tensor, "b 3 h w"]:
    """Shapes: (b, h, w, 3) uint8 -> (b, 3, h, w) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32) / 255


def scaled(images: np.ndarray, shown_px: int = SHOWN_PX, most_px: int = MOST_PX) -> np.ndarray:
    """Repeat pixels until the shorter side is at least `shown_px`, or average blocks until it is at most `most_px`.

    Shapes: (n, h, w, 3) uint8 -> (n, H, W, 3) uint8. Raises: ShapeError for no images or another layout.
    """
    _check(images)
    side = min(images.shape[1:3])
    if side < shown_px:
        factor = -(-shown_px // side)
        return images.repeat(factor, axis=1).repeat(factor, axis=2)
    factor = -(-side // most_px)
    if factor == 1:
        return images
    h, w = images.shape[1] // factor, images.shape[2] // factor
    blocks = images[:, : h * factor, : w * factor].reshape(len(images), h, factor, w, factor, 3)
    shrunk: np.ndarray = np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)
    return shrunk


def grid(images: np.ndarray, *, columns: int | None = None, shown_px: int = SHOWN_PX) -> np.ndarray:
    """One picture of all images, row by row; nearly square unless `columns` is given.

    Shapes: (n, h, w, 3) uint8 -> (H, W, 3) uint8. Raises: ShapeError for no images or another layout.
    """
    tiles = scaled(images, shown_px)
    n, h, w, _ = tiles.shape
    columns = min(n, columns or int(np.ceil(np.sqrt(n))))
    rows = -(-n // columns)
    canvas = np.full((rows * (h + GAP) + GAP, columns * (w + GAP) + GAP, 3), BACKGROUND, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = GAP + (i // columns) * (h + GAP), GAP + (i % columns) * (w + GAP)
        canvas[top : top + h, left : left + w] = tile
    return canvas


def rows_grid(groups: Sequence[np.ndarray], *, shown_px: int = SHOWN_PX, folds: int = 1) -> np.ndarray:
    """Column i shows groups[0][i] above groups[1][i] and so on: pairs, or an image above its neighbors.

    The columns are broken into `folds` bands of equal length, with a wider gap between them.
    """
    n = min(len(group) for group in groups)
    if n == 0 or folds < 1:
        raise ShapeError("there are no columns to draw", got=[len(group) for group in groups])
    per_band = -(-n // folds)
    bands = []
    for start in range(0, n, per_band):
        stop = min(n, start + per_band)
        band = np.concatenate([group[start:stop] for group in groups])
        bands.append(grid(band, columns=stop - start, shown_px=shown_px))
    width = max(band.shape[1] for band in bands)
    padded = [np.pad(b, ((0, 4 * GAP), (0, width - b.shape[1]), (0, 0)), constant_values=BACKGROUND) for b in bands]
    return np.concatenate(padded)[: -4 * GAP]


def png_bytes(picture: np.ndarray) -> bytes:
    """Shapes: (h, w, 3) uint8. No metadata and no time stamp, so equal pixels give equal bytes."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ShapeError("not a picture", got=(picture.shape, str(picture.dtype)), expected="(h, w, 3) uint8")
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=9)
    return buffer.getvalue()


def _check(images: np.ndarray) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or 0 in images.shape:
        raise ShapeError(
            "not a batch of images", got=(images.shape, str(images.dtype)), expected="(n, h, w, 3) uint8, n >= 1"
        )
