"""What of a target is known before it is sampled: a part of the batch's entry KNOWN."""

from typing import NamedTuple

from jaxtyping import Bool
from torch import Tensor

from components.base import Batch
from components.errors import ShapeError
from components.fields import mask_name
from components.target import KNOWN, EventSpec


class Known(NamedTuple):
    """A target, and where it is to be kept. Shapes: (b, *shape) as stored; where: bool, broadcast over it."""

    target: Tensor
    where: Bool[Tensor, "b ..."]


def known_part(batch: Batch, spec: EventSpec) -> Known | None:
    """What the batch says is known; None where it says nothing. Raises: ShapeError."""
    if KNOWN not in batch:
        return None
    target, where = batch[KNOWN], batch[mask_name(KNOWN)]
    sides = spec.shape[-2:]
    if target.shape[1:] != spec.shape or where.shape[1:] != sides:
        got, expected = (tuple(target.shape), tuple(where.shape)), ((spec.shape, sides))
        raise ShapeError("what is known does not fit the target", got=got, expected=expected)
    return Known(target, where if len(spec.shape) == len(sides) else where[:, None])
