"""Dropout whose mask is a function of one seed per row, so that neither world size nor batching changes it."""

import torch
from torch import Tensor

from components.rng import Rng

_ODD = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""The multipliers of SplitMix64 as signed 64-bit integers. Paper: Steele et al. 2014 (10.1145/2714064.2660195)."""


class RowDropout:
    """Zeroes a share of each row's elements and scales up the rest; every call has its own mask.

    Differs: torch's dropout draws from the global generator, in an order that depends on the batch.
    """

    def __init__(self, rng: Rng, drop_prob: float) -> None:
        self.drop_prob = drop_prob
        self._seeds = rng.integers(2**62)
        self._calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (rows, ...) -> the same."""
        self._calls += 1
        per_row = x[0].numel()
        stream = self._seeds + self._calls * (1 << 40)  # 2^40 elements before two calls overlap
        counter = stream[:, None] + torch.arange(per_row, device=x.device)
        kept = uniform_hash(counter) >= self.drop_prob
        return x * kept.view(x.shape).to(x.dtype) / (1.0 - self.drop_prob)


def uniform_hash(counter: Tensor) -> Tensor:
    """SplitMix64 of int64 counters, as float32 in [0, 1)."""
    z = counter * _ODD[0]  # wraps around, as intended
    z = (z ^ _shifted(z, 30)) * _ODD[1]
    z = (z ^ _shifted(z, 27)) * _ODD[2]
    return _shifted(z ^ _shifted(z, 31), 40).to(torch.float32) * 2.0**-24


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's >> keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
