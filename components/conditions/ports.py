"""The three ports by which conditions enter a network."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from components.nn.dropout import RowDropout


class States(NamedTuple):
    """A sequence for each example.

    Shapes: rows (b, m, width); mask (b, m) bool, True where a row counts, None where all do.
    """

    rows: Tensor
    mask: Tensor | None


class Both(NamedTuple):
    """A condition that enters by two ports. Shapes: vector (b, width)."""

    vector: Tensor
    states: States


Embedded = Tensor | States | Both
"""A condition, embedded: vectors (b, width), a sequence, both, or images (b, c, h, w)."""


@dataclass(frozen=True)
class Ports:
    """Embedded conditions of b examples, the component that each starts from, and the dropout of a step of training;
    what is not used is None.

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
    enlarged: Tensor | None = None
    """The small image at the target's size, to which the network's guess of x0 is added: (b, c, h, w) in [-1, 1]."""
    component: Tensor | None = None
    """Component of the base distribution: its index, (b,) int64, or its mean and deviation; None without components."""
    prepared: Tensor | None = None
    """What the network made of the others, for all steps of sampling (Network.prepare). Shapes: (b, ...)."""
    dropout: RowDropout | None = None
    """Of hidden activations, in training alone."""

    def beside(self, other: Self) -> Self:
        """The examples of both, these first; both use the same ports."""
        return self._with(lambda mine, theirs: torch.cat([mine, theirs]), other)

    def first(self, n: int) -> Self:
        """The first n examples."""
        return self._with(lambda mine, _: mine[:n], self)

    def _with(self, combine: Callable[[Tensor, Tensor], Tensor], other: Self) -> Self:
        pairs = {port.name: (getattr(self, port.name), getattr(other, port.name)) for port in fields(self)}
        found: dict[str, Any] = {name: None if a is None else combine(a, b) for name, (a, b) in pairs.items()}
        return type(self)(**found)
