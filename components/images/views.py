"""The views of a picture that encode caches: seeded by content, so a picture's views depend on nothing but itself."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from components.images.config import ViewRecipe
from components.images.decode import center_square, window
from components.rng import RowRng, derive_seed


class View(NamedTuple):
    """A square window in units of the center square's side, perhaps mirrored."""

    left: float
    top: float
    side: float
    flipped: bool


PLAIN = View(0.0, 0.0, 1.0, False)


def random_views(recipe: ViewRecipe, sha256s: Sequence[str]) -> list[list[View]]:
    """All views of each train picture; the first is PLAIN."""
    numbers = range(1, recipe.n_views)
    seeds = [derive_seed(recipe.seed, "view", sha256, number) for sha256 in sha256s for number in numbers]
    draws = RowRng(seeds).uniform(4).reshape(len(sha256s), len(numbers), 4).double().tolist()
    return [[PLAIN, *(_random_view(recipe, *u) for u in rows)] for rows in draws]


def _random_view(recipe: ViewRecipe, size: float, x: float, y: float, flip: float) -> View:
    """From four draws in [0, 1)."""
    low, high = recipe.crop_area
    side = math.sqrt(low + (high - low) * size)
    return View(x * (1 - side), y * (1 - side), side, flip < recipe.flip_prob)


def render(image: Image.Image, view: View, px: int) -> np.ndarray:
    """One view at px, cut and resized in one step. Shapes: RGB image -> (px, px, 3) uint8."""
    left, top, side = center_square(image)
    pixels = window(image, (left + view.left * side, top + view.top * side, view.side * side), px)
    return pixels[:, ::-1] if view.flipped else pixels
