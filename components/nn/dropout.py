"""Dropout whose mask is a function of one seed per row, so that neither world size nor batching changes it."""

import copy

import torch
from torch import Tensor

from components.rng import Rng

_ODD = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""The multipliers of SplitMix64 as signed 64-bit integers. Paper: Steele et al. 2014 (10.1145/2714064.2660195)."""
_LEVELS = 1 << 16


class RowDropout:
    """Zeroes a share of each row's elements and scales up the rest; masks are numbered.

    A call changes nothing, so that a layer that is computed again for its gradient gets the same masks. Each 32-bit
    hash of an element's number decides two elements, so that probabilities are multiples of 2^-16.
    Differs: torch's dropout draws from the global generator, in an order that depends on the batch.
    """

    def __init__(self, rng: Rng, drop_prob: float) -> None:
        self._threshold = round(drop_prob * _LEVELS) - _LEVELS // 2
        self._scale = 1.0 / (1.0 - drop_prob)
        self._seeds = rng.integers(2**62)

    def after(self, n: int) -> "RowDropout":
        """The masks behind the first n."""
        other = copy.copy(self)
        other._seeds = self._seeds + n
        return other

    def __call__(self, x: Tensor, number: int) -> Tensor:
        """Mask number 1, 2, … on x. Shapes: (rows, ...) -> the same."""
        per_row = x[0].numel()
        keys = splitmix64(self._seeds + number).view(torch.int32).view(-1, 2, 1)  # two 32-bit keys per row
        numbers = torch.arange((per_row + 1) // 2, dtype=torch.int32, device=x.device)
        bits = hash32(numbers + keys[:, 0]).bitwise_xor_(keys[:, 1])
        kept = bits.view(torch.int16)[:, :per_row] >= self._threshold
        return x * kept.to(x.dtype).mul_(self._scale).reshape(x.shape)


def splitmix64(z: Tensor) -> Tensor:
    """SplitMix64's output function of int64 counters, as int64."""
    z = z * _ODD[0]  # wraps around, as intended
    z = (z ^ _shifted(z, 30, 64)) * _ODD[1]
    z = (z ^ _shifted(z, 27, 64)) * _ODD[2]
    return z ^ _shifted(z, 31, 64)


def hash32(z: Tensor) -> Tensor:
    """A mixing permutation of int32, in place: "lowbias32", which multiplies by 0x7feb352d and 0x846ca68b."""
    z.bitwise_xor_(_shifted(z, 16, 32)).mul_(0x7FEB352D)
    z.bitwise_xor_(_shifted(z, 15, 32)).mul_(0x846CA68B - (1 << 32))
    return z.bitwise_xor_(_shifted(z, 16, 32))


def _shifted(z: Tensor, by: int, width: int) -> Tensor:
    """Logical right shift: torch's >> keeps the sign."""
    return (z >> by).bitwise_and_((1 << (width - by)) - 1)
