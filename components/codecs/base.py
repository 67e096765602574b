"""What every codec is: an image <-> what a pixel generator works on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor, nn

from components.errors import ShapeError
from components.nn.groups import in_groups
from components.target import TargetSpec

_PIXELS = 256**2
"""Image pixels that go through an autoencoder at once on a CPU."""


class Codec(nn.Module, ABC):
    """Frozen image <-> target, the latter in the dtype that the cache stores.

    Raises: ShapeError for images that are not (b, 3, px, px) floats, or targets that do not fit `spec`.
    """

    spec: TargetSpec

    @abstractmethod
    def encode(self, images: Float[Tensor, "b 3 px px"]) -> Tensor:
        """Shapes: (b, 3, px, px) in [0, 1] -> (b, *spec.shape) of spec.dtype."""

    @abstractmethod
    def decode(self, target: Tensor) -> Float[Tensor, "b 3 px px"]:
        """Shapes: (b, *spec.shape) of spec.dtype -> (b, 3, px, px), clamped to [0, 1]."""

    def in_groups(self, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """call(x) of one of the networks, over groups of images that suit a CPU's cache."""
        return in_groups(call, x, rows=_PIXELS // self.spec.image_px**2)

    def check_images(self, images: Tensor) -> None:
        px = self.spec.image_px
        if images.ndim != 4 or images.shape[1:] != (3, px, px) or not images.is_floating_point():
            got = f"{tuple(images.shape)} {images.dtype}"
            raise ShapeError(
                "images do not fit the codec", got=got, expected=f"(b, 3, {px}, {px}) floats in [0, 1]",
                fix=f"resize them to {px} px, or import or train a codec with another codec.model.px",
            )  # fmt: skip

    def check_target(self, target: Tensor) -> None:
        spec = self.spec
        if target.shape[1:] != spec.shape or str(target.dtype) != f"torch.{spec.dtype}":
            got = f"{tuple(target.shape)} {target.dtype}"
            raise ShapeError("target does not fit the codec", got=got, expected=f"(b, {spec.shape}) {spec.dtype}")


def check_levels(px: int, width: int, multipliers: Sequence[int], groups: int) -> None:
    """Raises: ValueError, for a config's validator, when an autoencoder of these levels cannot be built."""
    factor = 2 ** (len(multipliers) - 1)
    if px % factor:
        raise ValueError(f"px is {px}, which {len(multipliers)} levels cannot halve; use a multiple of {factor}")
    if bad := [m for m in multipliers if width * m % groups]:
        raise ValueError(f"width {width} x {bad[0]} does not split into {groups} groups; lower groups")


class CodecModel(Protocol):
    """A config of the union: it builds its codec, with fresh weights if it has any."""

    def build(self) -> Codec: ...
