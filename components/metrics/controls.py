"""Real pictures spoiled on purpose: what a feature network has to tell from pictures before its numbers mean anything.

All of them are uint8, (n, h, w, 3), and as many as went in. Nothing is drawn from a global generator.
"""

from collections.abc import Callable, Mapping

import numpy as np
from torch.nn import functional

from components.errors import ShapeError
from components.images.pictures import to_float, to_uint8

_GRID = 4  # patches along a side, and how much smaller a blurred picture is made in between


def resized_down(images: np.ndarray, side_px: int) -> np.ndarray:
    """Shrunk to side_px with antialiasing and enlarged again: what is left of a picture at that resolution.

    Shapes: (n, h, w, 3) uint8 -> the same. Raises: ShapeError for a side outside 1..h.
    """
    _check(images)
    h, w = images.shape[1:3]
    if not 1 <= side_px <= min(h, w):
        raise ShapeError("pictures are shrunk to a side of theirs or less", got=side_px, expected=f"1 to {min(h, w)}")
    if side_px == h == w:
        return images
    small = functional.interpolate(
        to_float(images), size=(side_px, side_px), mode="bilinear", antialias=True, align_corners=False
    )
    return to_uint8(functional.interpolate(small, size=(h, w), mode="bilinear", align_corners=False))


def blurred(images: np.ndarray, _seed: int = 0) -> np.ndarray:
    """At a quarter of their resolution: colors and layout stay, detail goes."""
    return resized_down(images, max(1, min(images.shape[1:3]) // _GRID))


def shuffled(images: np.ndarray, seed: int) -> np.ndarray:
    """Cut into 4 x 4 patches, each picture's patches put back in an order of its own: detail stays, layout goes.

    Rows and columns that no whole patch fills stay where they are. No patch stays in place.
    """
    _check(images)
    patch = min(images.shape[1:3]) // _GRID
    if patch < 1:
        raise ShapeError("pictures are too small for 4 x 4 patches", got=images.shape, expected="4 pixels or more")
    rng, side, out = np.random.default_rng(seed), patch * _GRID, images.copy()
    cut = images[:, :side, :side].reshape(len(images), _GRID, patch, _GRID, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    patches = cut.reshape(len(images), _GRID**2, patch, patch, 3)
    # a random cycle through all patches moves every one of them
    cycles = rng.permuted(np.tile(np.arange(_GRID**2), (len(images), 1)), axis=1)
    order = np.empty_like(cycles)
    np.put_along_axis(order, cycles, np.roll(cycles, 1, axis=1), axis=1)
    moved = np.take_along_axis(patches, order[:, :, None, None, None], axis=1)
    back = moved.reshape(len(images), _GRID, _GRID, patch, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    out[:, :side, :side] = back.reshape(len(images), side, side, 3)
    return out


def noise(images: np.ndarray, seed: int) -> np.ndarray:
    """Each pixel taken from another picture's same pixel, at random: every pixel keeps the colors it has in the set.

    So mean and spread of each pixel are those of the pictures, and nothing of any one picture is left.
    """
    _check(images)
    n, h, w, _ = images.shape
    rng, out = np.random.default_rng(seed), np.empty_like(images)
    columns = np.arange(w)
    for y in range(h):  # row by row, so that the indices stay small
        source = rng.permuted(np.tile(np.arange(n)[:, None], (1, w)), axis=0)  # (n, w)
        out[:, y] = images[source, y, columns]
    return out


CONTROLS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "blurred": blurred,
    "shuffled": shuffled,
    "noise": noise,
}
"""Name -> (images, seed) -> spoiled images, from the mildest to the worst."""


def _check(images: np.ndarray) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or 0 in images.shape:
        raise ShapeError(
            "not a batch of images", got=(images.shape, str(images.dtype)), expected="(n, h, w, 3) uint8, n >= 1"
        )
