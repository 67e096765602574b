"""How often each class or cluster occurs among the training rows, and sampling by it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from components.rng import Rng


def shares(index: Int[Tensor, " n"], k: int) -> Float[Tensor, " k"]:
    """Share of each of k classes among the rows that have one; -1 is none. Zeros where no row has one."""
    counts = torch.bincount(index[index >= 0].cpu(), minlength=k).double()
    return counts / counts.sum().clamp(min=1)


def sample_index(frequencies: Float[Tensor, " k"], rng: Rng) -> Int[Tensor, " rows"]:
    """One index per row by the inverse CDF: one uniform each. `frequencies` need not sum to one."""
    edges = frequencies.double().cumsum(0)
    return torch.bucketize(rng.uniform().double() * edges[-1], edges[:-1], right=True)
