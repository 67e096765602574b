"""Sinusoids of time: cosines first, in single precision."""

import math

import pytest
import torch

from components.nn.timestep import sinusoids


@pytest.mark.parametrize("dim", [8, 256, 1536])
def test_cosines_then_sines_of_the_raw_time(dim: int) -> None:
    times = [0, 1, 250, 999]
    out = sinusoids(torch.tensor(times), dim)
    assert out.shape == (4, dim)
    assert out.dtype == torch.float32
    half = dim // 2
    for row, t in zip(out, times, strict=True):
        angles = [t * 10000 ** (-i / half) for i in range(half)]
        assert row[:half].tolist() == pytest.approx([math.cos(a) for a in angles], abs=1e-4)
        assert row[half:].tolist() == pytest.approx([math.sin(a) for a in angles], abs=1e-4)
