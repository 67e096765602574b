"""The views of a picture that encode caches: seeded by content, so a picture's views depend on nothing but itself."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from components.config import Config
from components.images.decode import center_square, window
from components.rng import RowRng, derive_seed

if TYPE_CHECKING:
    from PIL.Image import Image


class ViewRecipe(Config):
    """View 0 is the plain center square of every picture; the others are random crops of it, of train pictures only."""

    seed: int = Field(ge=0)
    """Seed of the random views."""
    n_views: int = Field(ge=1)
    """Views per train picture. The reference draws a new view at every step; here training chooses among these."""
    crop_area: tuple[float, float]
    """Range of the share of the center square that a random view shows: (1, 1) is no crop."""
    flip_prob: float = Field(ge=0, le=1)
    """Share of the random views that are mirrored. 0 for digits or letters."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(seed=0, n_views=2, crop_area=(0.8, 1.0), flip_prob=0.5)

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area must be two shares with 0 < low <= high <= 1, not {self.crop_area}")
        if self.n_views > 1 and low == 1 and self.flip_prob == 0:
            raise ValueError(f"all {self.n_views} views would be equal: set n_views: 1, or crop_area or flip_prob")
        return self


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


def render(image: "Image", view: View, px: int) -> np.ndarray:
    """One view at px, cut and resized in one step. Shapes: RGB image -> (px, px, 3) uint8."""
    left, top, side = center_square(image)
    pixels = window(image, (left + view.left * side, top + view.top * side, view.side * side), px)
    return pixels[:, ::-1] if view.flipped else pixels
