"""Collectives that gradients flow through, over the default process group; identity when there is none.

They run on any backend, gloo on CPU included. The gradient of each rank's loss reaches every rank's rows, so that with
DDP's averaging the result is the gradient of the mean of all ranks' losses.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.autograd import Function


def world_size() -> int:
    """Ranks of the default process group; 1 without one."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _Sum(Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of x over all ranks, on every rank. Shapes: equal on every rank."""
    if world_size() == 1:
        return x
    out: Tensor = _Sum.apply(x)
    return out


def gather_rows(x: Float[Tensor, "b ..."]) -> tuple[Float[Tensor, "n ..."], int]:
    """Rows of all ranks in rank order, and where this rank's rows start. Ranks may hold different numbers of rows."""
    if world_size() == 1:
        return x, 0
    counts = torch.zeros(world_size(), dtype=torch.int64, device=x.device)
    counts[distributed.get_rank()] = len(x)
    distributed.all_reduce(counts)
    start = int(counts[: distributed.get_rank()].sum())
    placed = x.new_zeros((int(counts.sum()), *x.shape[1:]))
    placed[start : start + len(x)] = x
    return sum_over_ranks(placed), start  # a sum of disjoint rows: exact, and works where all_gather wants equal shapes
