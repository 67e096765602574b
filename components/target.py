"""The spaces of what generators make, and the fields that every cache has. Imports without torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from components.config import Config
from components.fields import FieldSpec

if TYPE_CHECKING:
    from torch import Tensor

LOW_RES, NOISE = "low_res", "low_res_noise"
"""Entries of an upsampler's batch: the small image, and the standard deviation of the noise that is added to it before
it is seen, in units of half the range of pixels. Shapes: (b, c, h, w) uint8; (b,) float32."""
KNOWN = "known"
"""Entry of a batch for sampling: the target of a given picture, of which only what its mask says counts; the rest is
filled in. Shapes: (b, *shape) as stored; beside it the mask of mask_name(), (b, h, w) bool, True where it is known."""


class EventSpec(Config):
    """One value of what a generator makes, as the cache stores it."""

    space: Literal["representations", "pixels", "latents", "tokens"]
    shape: tuple[int, ...]
    """Without the batch: (dim,) for representations, (c, h, w) for pixels and latents, (h, w) for tokens."""
    dtype: Literal["uint8", "float16", "float32", "int32"]
    """Stored dtype: pixels uint8 (0..255), latents float, tokens int32, representations float32."""
    n_codes: int | None
    """Size of the codebook; None unless the space is tokens."""

    def as_float(self, target: "Tensor") -> "Tensor":
        """Stored pixels to [-1, 1]; others to float32. Shapes: (b, *shape) -> (b, *shape)."""
        values = target.float()
        return values / 127.5 - 1.0 if self.space == "pixels" else values


class TargetSpec(EventSpec):
    """The space that a pixel generator works in: what the codec makes of an image, as the cache stores it."""

    space: Literal["pixels", "latents", "tokens"]
    image_px: int
    """Side of the square image that a target decodes to."""


def data_fields(dim: int, target: TargetSpec, classes: Sequence[str] | None) -> tuple[FieldSpec, ...]:
    """What is known of every picture: representation, target, and its class, if it has one.

    `dim`: of the representations; `classes`: names in the order of their ids, None when nothing is labeled.
    """
    return (
        FieldSpec(name="representation", dtype="float32", shape=(dim,)),
        FieldSpec(name="target", dtype=target.dtype, shape=target.shape),
        FieldSpec(name="class", dtype="int64", shape=(), nullable=True, names=tuple(classes or ())),
    )
