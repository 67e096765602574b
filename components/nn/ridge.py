"""Linear regression with a penalty that the rows themselves choose."""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

_PENALTIES = torch.logspace(-4, 4, 33, dtype=torch.float64)
"""Times the mean square of the singular values."""


class Ridge(NamedTuple):
    """x @ weight is near to y. `freedom`: effective number of parameters for each column of y."""

    weight: Float64[Tensor, "w k"]
    freedom: float


def ridge(x: Float64[Tensor, "n w"], y: Float64[Tensor, "n k"]) -> Ridge:
    """Of centered columns; n >= 2. The penalty is the one of least generalized cross-validation (Golub et al. 1979)."""
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    known = u.T @ y
    outside = y.square().sum() - known.square().sum()
    penalties = _PENALTIES.to(s.device) * s.square().mean().clamp(min=1e-30)
    errors = []
    for penalty in penalties:
        left = penalty / (s.square() + penalty)  # share of each direction that the fit does not take
        missed = outside + (left[:, None] * known).square().sum()
        errors.append(missed / (len(y) - len(s) + left.sum()).square())
    best = penalties[torch.stack(errors).argmin()]
    taken = s.square() / (s.square() + best)
    return Ridge(v.T @ ((s / (s.square() + best))[:, None] * known), float(taken.sum()))
