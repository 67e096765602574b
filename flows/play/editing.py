"""A picture that is edited step by step: what is shown of it, the mask that is painted over it, and the way back."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from components.bundle.edits import read_picture
from components.bundle.request import Picture
from components.errors import ConfigError
from components.images.config import DecodeRecipe
from components.images.decode import center_square, square
from components.images.pictures import png_bytes

CANVAS_PX = 512
"""Side of what is painted on: a whole multiple of a smaller picture, so that each of its pixels is a square."""


def canvas(picture: Picture, recipe: DecodeRecipe, px: int) -> np.ndarray:
    """The center square at px, which is all that a model of that size sees of a picture, large enough to paint on.

    Shapes: -> (side, side, 3) uint8. Raises: DataError.
    """
    pixels, times = square(read_picture(picture, recipe), px), max(1, CANVAS_PX // px)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def mask_of(painted: np.ndarray, picture: Picture, recipe: DecodeRecipe) -> Picture:
    """The mask file of what is painted over a picture's center square: white on black, of the picture's aspect.

    Shapes: painted (h, w) bool. Raises: ConfigError if that is nothing; DataError.
    """
    if not painted.any():
        raise ConfigError("the mask covers nothing", got="no paint", fix="paint over what is to be filled")
    image = read_picture(picture, recipe)
    left, top, side = center_square(image)
    times = max(1, CANVAS_PX // side)
    whole = Image.new("L", (image.width * times, image.height * times))
    over = Image.fromarray(painted.astype(np.uint8) * 255).resize((side * times, side * times), Image.Resampling.BOX)
    whole.paste(over.point(lambda level: 255 * (level > 0)), (left * times, top * times))
    return Picture(png_bytes(np.asarray(whole.convert("RGB"))), "the painted mask")


@dataclass(frozen=True)
class Step:
    """What one filling made: pictures to choose from, and the one that is gone on with."""

    pictures: tuple[Picture, ...]
    mask: Picture | None
    """None: this is what editing began with."""
    chosen: int = 0

    @property
    def picture(self) -> Picture:
        return self.pictures[self.chosen]


@dataclass(frozen=True)
class History:
    """All steps, from the given picture on."""

    steps: tuple[Step, ...]

    @classmethod
    def of(cls, picture: Picture) -> "History":
        return cls((Step((picture,), mask=None),))

    @property
    def picture(self) -> Picture:
        """What is edited next."""
        return self.steps[-1].picture

    @property
    def way(self) -> tuple[Picture, ...]:
        """The picture of each step."""
        return tuple(step.picture for step in self.steps)

    @property
    def sources(self) -> tuple[Picture, ...]:
        """What the last filling was made of, for `rcg verify`: the picture and the mask, under names of their own."""
        number, mask = len(self.steps) - 1, self.steps[-1].mask
        if mask is None:
            return ()
        return (
            replace(self.steps[-2].picture, name=f"step{number}-image.png"),
            replace(mask, name=f"step{number}-mask.png"),
        )

    def filled(self, mask: Picture, pictures: tuple[Picture, ...]) -> "History":
        """One step more."""
        return History((*self.steps, Step(pictures, mask)))

    def choose(self, i: int) -> "History":
        """Go on with another picture of the last step."""
        return History((*self.steps[:-1], replace(self.steps[-1], chosen=i)))

    def undone(self) -> "History":
        """Without the last step; the given picture stays."""
        return History(self.steps[:-1]) if len(self.steps) > 1 else self
