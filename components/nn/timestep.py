"""Diffusion time as a vector."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sinusoids(t: Int[Tensor, " n"], dim: int) -> Float[Tensor, "n dim"]:
    """cos(t w_i) for i < dim/2, then sin(t w_i), with w_i = 10000^(-2i/dim): **cosines first**.

    Angles are float32, as where the published weights were trained: off by up to 6e-5 rad at t = 999, which a deep
    network carries to 5e-6 of its output.
    Differs: Vaswani et al. 2017 interleave them; guided-diffusion, DiT and the reference RDM put cosines first.
    """
    half = dim // 2
    rates = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)
