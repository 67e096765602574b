"""Which part of a target an inpainter is told in training: seeded masks of boxes and strokes, drawn per row."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from components.rng import Rng

_N_BOXES, _N_CORNERS = 2, 5
_OUTSIDE = 0.2
"""Share of the box masks of which only the inside is known, so that pictures can be extended, too."""


def drawn_masks(rng: Rng, sides: tuple[int, int]) -> Bool[Tensor, "b h w"]:
    """True where the target is known. For each row one or two boxes, or a stroke, are to be filled, by a fair coin.

    A box has sides of 0.25 to 0.75 of the target's, and may reach over its edge; for one in five only its inside is
    known. A stroke joins five points by lines that are 0.1 to 0.3 of the target's side wide.
    Paper: 2112.10741 erases random regions; boxes and strokes as usual since 1806.03589.
    """
    h, w = sides
    u = rng.uniform(4 + 4 * _N_BOXES + 2 * _N_CORNERS)
    coins, boxes, corners = u[:, :4], u[:, 4 : 4 + 4 * _N_BOXES], u[:, 4 + 4 * _N_BOXES :]
    y, x = ((torch.arange(n, device=u.device) + 0.5) / n for n in (h, w))
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)
    boxed = _in_boxes(places, boxes.reshape(-1, _N_BOXES, 4), two=coins[:, 1] < 0.5)
    boxed = boxed ^ (coins[:, 2] < _OUTSIDE)[:, None, None]
    stroked = _distance(places, corners.reshape(-1, _N_CORNERS, 2)) < (0.05 + 0.1 * coins[:, 3])[:, None, None]
    return ~torch.where((coins[:, 0] < 0.5)[:, None, None], boxed, stroked)


def _in_boxes(
    places: Float[Tensor, "h w 2"], u: Float[Tensor, "b k 4"], *, two: Bool[Tensor, " b"]
) -> Bool[Tensor, "b h w"]:
    """Inside the first box, or, where there are two, inside either."""
    center, half = u[..., :2], 0.125 + 0.25 * u[..., 2:]
    inside = ((places - center[:, :, None, None]).abs() < half[:, :, None, None]).all(-1)
    return inside[:, 0] | (inside[:, 1] & two[:, None, None])


def _distance(places: Float[Tensor, "h w 2"], corners: Float[Tensor, "b k 2"]) -> Float[Tensor, "b h w"]:
    """From each place to the nearest of the lines between one corner and the next."""
    nearest = places.new_full((len(corners), *places.shape[:2]), math.inf)
    starts = corners[:, :-1, None, None]
    for start, along in zip(starts.unbind(1), corners.diff(dim=1)[:, :, None, None].unbind(1), strict=True):
        share = ((places - start) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-12)
        foot = start + share.clamp(0, 1)[..., None] * along
        nearest = torch.minimum(nearest, (places - foot).norm(dim=-1))
    return nearest
