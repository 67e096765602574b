"""A given picture and mask -> what a system keeps of it, and how that is laid over what it fills in.

A mask says what is to be filled: where it is transparent, or, without any transparency, where it is white.
"""

import logging
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as tf

from components.bundle.request import Edit, Picture
from components.errors import DataError
from components.images.config import DecodeRecipe
from components.images.decode import center_square, decode, square
from components.images.pictures import to_float

_log = logging.getLogger(__name__)
_TOUCHED = 0.01
"""Share of a pixel from which on it is filled as a whole: what was painted over does not shine through at edges."""
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)


class KnownPixels(NamedTuple):
    """A picture as the model sees it, and which pixels are kept. Shapes: (1, 3, px, px) in [0, 1]; (1, px, px)."""

    image: Float[Tensor, "1 3 px px"]
    known: Bool[Tensor, "1 px px"]

    def on_grid(self, sides: tuple[int, int]) -> Bool[Tensor, "1 h w"]:
        """Places of a target all of whose pixels are known."""
        unknown = (~self.known).float()[:, None]
        return tf.adaptive_max_pool2d(unknown, sides)[:, 0] == 0

    def drawn_over(self) -> Float[Tensor, "1 3 px px"]:
        """The picture with what is known carried smoothly over the rest, so that a codec sees nothing of that."""
        weight = self.known[:, None].to(self.image.dtype)
        near = _smoothed(weight, max(1, self.image.shape[-1] // 8))
        carried = _smoothed(self.image * weight, max(1, self.image.shape[-1] // 8)) / near.clamp(min=1e-6)
        mean = (self.image * weight).sum((2, 3), keepdim=True) / weight.sum()
        return torch.where(self.known[:, None], self.image, torch.where(near > 1e-3, carried, mean))


def read_picture(picture: Picture, recipe: DecodeRecipe) -> Image.Image:
    """A given picture as training pictures are decoded. Raises: DataError naming it."""
    try:
        return decode(picture.data, recipe)
    except DataError as error:
        raise DataError(f"{picture.name} cannot be used", got=error.what, expected="a picture file") from error


def read_edit(edit: Edit, recipe: DecodeRecipe, px: int) -> KnownPixels:
    """The center square of picture and mask at px, as the collection cuts its pictures.

    Raises: DataError for a picture of fewer pixels, and a mask of another aspect, of nothing or of everything.
    """
    image, mask = _large_enough(edit.image, recipe, px), _filled(edit.mask, recipe)
    if abs(mask.height - mask.width * image.height / image.width) > 1:
        raise DataError(
            f"{edit.mask.name} is of another aspect than the picture",
            got=_size(mask.size),
            expected=f"the aspect of {_size(image.size)}, in any size",
            fix="paint the mask over the whole picture",
        )
    known = ~torch.from_numpy(_cut(mask, image.size, px) >= _TOUCHED)
    share = float(known.float().mean())
    if share in (0.0, 1.0):
        what = "nothing to fill" if share else "nothing of the picture"
        fix = (
            "paint what is to be filled white, or erase it" if share else "use `rcg sample`, with --like for variations"
        )
        raise DataError(
            f"{edit.mask.name} leaves {what}",
            got=f"all of the {_size((px, px))} pixels are {'known' if share else 'to be filled'}",
            expected="white or transparent where the picture is to be filled",
            fix=fix,
        )
    return KnownPixels(to_float(square(image, px)[None].copy()), known[None])


def read_square(picture: Picture, recipe: DecodeRecipe, px: int) -> Float[Tensor, "1 3 px px"]:
    """The center square of a picture at px, in [0, 1]. Raises: DataError for one of fewer pixels."""
    return to_float(square(_large_enough(picture, recipe, px), px)[None].copy())


def _large_enough(picture: Picture, recipe: DecodeRecipe, px: int) -> Image.Image:
    image = read_picture(picture, recipe)
    if min(image.size) < px:
        raise DataError(
            f"{picture.name} is smaller than the pictures that the model makes",
            got=_size(image.size),
            expected=f"at least {_size((px, px))} pixels",
            fix="give a larger picture",
        )
    return image


def blended(
    images: Float[Tensor, "b 3 px px"], picture: Float[Tensor, "b 3 px px"], known: Bool[Tensor, "b px px"], reach: int
) -> Float[Tensor, "b 3 px px"]:
    """The known pixels of the picture, exactly, and around them images that are drawn towards them at the edge.

    What the picture has beside the decoded image on the known side is carried over the edge, as a mean of Gaussian
    weights, and fades within about `reach` pixels. What the picture shows where it is to be filled is not looked at.
    """
    weight = known[:, None].to(images.dtype)
    near = _smoothed(weight, reach)
    carried = _smoothed((picture - images) * weight, reach) / near.clamp(min=1e-6)
    drawn = images + (2 * near).clamp(max=1) * carried
    return torch.where(known[:, None], picture, drawn.clamp(0, 1))


def _smoothed(x: Tensor, std: int) -> Tensor:
    """Gaussian blur, zeros around."""
    at = torch.arange(-3 * std, 3 * std + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / std) ** 2)
    kernel, c = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1), x.shape[1]
    x = tf.conv2d(x, kernel, padding=(0, 3 * std), groups=c)
    return tf.conv2d(x, kernel.transpose(2, 3), padding=(3 * std, 0), groups=c)


def _filled(mask: Picture, recipe: DecodeRecipe) -> Image.Image:
    """1 where the mask says that the picture is to be filled, 0 elsewhere. Mode: F."""
    light, dark = (read_picture(mask, recipe.model_copy(update={"background": b})) for b in (_LIGHT, _DARK))
    white = np.asarray(light.convert("L"))
    clear = white.astype(np.int16) - np.asarray(dark.convert("L"))  # what the background adds: 255 (1 - alpha)
    levels = clear if clear.any() else white
    gray = float(((levels > 0) & (levels < 255)).mean())
    if gray:
        _log.warning(
            "%s is not black and white alone: %.1f%% of it lies between, and is taken as the nearer of the two",
            mask.name,
            100 * gray,
        )
    return Image.fromarray((levels >= 128).astype(np.float32))


def _cut(mask: Image.Image, size: tuple[int, int], px: int) -> np.ndarray:
    """The share of each pixel that is to be filled, in the center square of a picture of this size.

    Shapes: -> (px, px).
    """
    left, top, side = center_square(Image.new("1", size))
    x, y = mask.width / size[0], mask.height / size[1]
    box = (left * x, top * y, min((left + side) * x, mask.width), min((top + side) * y, mask.height))
    return np.asarray(mask.resize((px, px), Image.Resampling.BOX, box=box))


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
