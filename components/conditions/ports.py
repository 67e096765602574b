"""The three ports by which conditions enter a network."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Ports:
    """Embedded conditions of b examples; a port that no condition uses is None.

    Shapes: vector (b, width); sequence (b, n, sequence_width) with mask (b, n) bool, True where a position counts, None
    where all do; spatial (b, c, h, w) at the target's size.
    """

    vector: Tensor | None = None
    """Added to the time embedding, or the class token."""
    sequence: Tensor | None = None
    """Keys and values of attention."""
    mask: Tensor | None = None
    spatial: Tensor | None = None
    """Extra input channels."""
