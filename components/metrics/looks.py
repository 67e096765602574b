"""Two numbers that the eye agrees with, where the Frechet distance calls a mosaic and a soft picture equal.

Blockiness needs no feature network. Equivalent resolution says a Frechet distance in pixels.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from components.errors import ShapeError

PERIODS = (2, 4, 8)
"""Sides of the patches that are looked for, in pixels, beside the generator's own."""
_SMALLEST = 0.5  # half a gray level: less than that an 8-bit picture cannot tell


def blockiness(images: np.ndarray, period: int) -> float:
    """Mean absolute difference of neighboring pixels across the borders of patches over that inside patches.

    1 for pictures that know nothing of patches; more where these do not fit together. Both directions, all channels.
    Shapes: (n, h, w, 3) uint8. Units: period in pixels. Raises: ShapeError where no border or no inside is.
    """
    if images.ndim != 4 or not 2 <= period < min(images.shape[1:3]):
        raise ShapeError("no patches of this side in these images", got=(images.shape, period), expected="2 to h - 1")
    across, inside, n_across, n_inside = 0.0, 0.0, 0, 0
    for axis in (1, 2):
        for image in images:
            steps = np.abs(np.diff(image.astype(np.int16), axis=axis - 1)).swapaxes(0, axis - 1)  # step i: i to i + 1
            at_border = np.arange(1, len(steps) + 1) % period == 0
            across, n_across = across + float(steps[at_border].sum()), n_across + int(steps[at_border].size)
            inside, n_inside = inside + float(steps[~at_border].sum()), n_inside + int(steps[~at_border].size)
    return max(across / n_across, _SMALLEST) / max(inside / n_inside, _SMALLEST)


def worst_blockiness(images: np.ndarray, real: np.ndarray, periods: Collection[int]) -> tuple[int, float, float]:
    """The period at which images exceed real ones most, and both their blockiness there.

    Real pictures need not have 1: pixel art and letters have borders of their own. Raises: ShapeError.
    """
    fit = sorted({period for period in periods if 2 <= period < min(images.shape[1:3])})
    if not fit:
        raise ShapeError("images are too small for patches", got=images.shape, expected="3 pixels or more")
    found = [(period, blockiness(images, period), blockiness(real, period)) for period in fit]
    return max(found, key=lambda one: one[1] / one[2])


def own_period(config: dict[str, Any]) -> int | None:
    """Side in image pixels of the patches that a generator paints, of its config.json; None where it has none."""
    model, target = config.get("model", {}), config.get("data", {}).get("target")
    side = model.get("patch", model.get("stride", 1))
    if target is None or not isinstance(side, int):
        return None
    return side * int(target["image_px"]) // int(target["shape"][-1])


def sizes_px(px: int) -> list[int]:
    """Sides to which real pictures are shrunk: px, then 3/4 and 1/2 of it and so on, down to 2."""
    sizes = {int(px * part / 2**n) for n in range(px.bit_length()) for part in (1, 0.75)}
    return sorted((size for size in sizes if size >= 2), reverse=True)


def equivalent_px(distance: float, sizes: Sequence[int], distances: Sequence[float]) -> float:
    """To how many pixels real pictures have to be shrunk, and enlarged again, to be as far away as `distance`.

    `distances[i]` is that of real pictures shrunk to sizes[i], largest first. Between sizes the logarithm of the side
    is interpolated. A smaller size that happens to be nearer counts as no farther than the one before. What is nearer
    than the largest size has that size, what is farther than the smallest has the smallest. Units: pixels.
    Raises: ShapeError.
    """
    if not sizes or len(sizes) != len(distances) or list(sizes) != sorted(set(sizes), reverse=True):
        raise ShapeError("sizes fall, each with a distance", got=(list(sizes), len(distances)))
    rising = np.maximum.accumulate(np.asarray(distances, np.float64))
    i = int(np.searchsorted(rising, distance, side="left"))
    if i == 0:
        return float(sizes[0])
    if i == len(sizes):
        return float(sizes[-1])
    share = (distance - rising[i - 1]) / (rising[i] - rising[i - 1])
    return float(sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** share)
