"""Retrieval: whether an image that a text is of is among the k nearest to the text, and what chance would give."""

from math import comb

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def recall(similarity: Float[Tensor, "texts images"], right: Bool[Tensor, "texts images"], k: int) -> float:
    """Share of texts with a right image among the k most similar."""
    nearest = similarity.topk(min(k, similarity.shape[1]), dim=1).indices
    return float(right.gather(1, nearest).any(1).double().mean())


def chance(right: Bool[Tensor, "texts images"], k: int) -> float:
    """What recall() is on average where k different images are drawn at random: 1 - C(n - m, k) / C(n, k)."""
    n = right.shape[1]
    k = min(k, n)
    missed = [comb(n - int(m), k) / comb(n, k) for m in right.sum(1)]
    return 1 - float(torch.tensor(missed, dtype=torch.float64).mean())
