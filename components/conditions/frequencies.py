"""Indices as frequent as among the training rows."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from components.rng import Rng


def sample_index(frequencies: Float[Tensor, " k"], rng: Rng) -> Int[Tensor, " rows"]:
    """One index per row by the inverse CDF: one uniform each. `frequencies` need not sum to one."""
    edges = frequencies.double().cumsum(0)
    return torch.bucketize(rng.uniform().double() * edges[-1], edges[:-1], right=True)
