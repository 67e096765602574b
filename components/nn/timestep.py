"""Diffusion time as a vector."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sinusoids(t: Int[Tensor, " n"], dim: int) -> Float[Tensor, "n dim"]:
    """cos(t w_i) for i < dim/2, then sin(t w_i), with w_i = 10000^(-2i/dim): **cosines first**.

    Differs: Vaswani et al. 2017 interleave them; guided-diffusion, DiT and the reference RDM put cosines first.
    Angles are computed in float64: in float32 t * w is off by 6e-5 rad at t = 999.
    """
    half = dim // 2
    rates = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.double()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()
