"""Fewer numbers in a representation: its leading principal axes over the training pictures, whitened or not.

z: standardized output of a network (n, d), w: what the generators see (n, k).
Differs: the paper (2312.03701) generates z as it is. An RDM of few steps learns a hundred axes of one size far better
than a thousand of which most are noise.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from components.encoders.config import PcaConfig
from components.errors import ConfigError

_FLAT = 1e-9
"""Variance of an axis, over that of the first, below which it is rounding."""


class Reduction(nn.Module):
    """w = (z - mean) @ axes, a fixed function."""

    mean: Tensor
    axes: Tensor

    def __init__(self, d: int, k: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("axes", torch.zeros(d, k))

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        w: Tensor = (z - self.mean) @ self.axes
        return w


def fitted(z: Float[Tensor, "n d"], config: PcaConfig) -> tuple[Reduction, float]:
    """The reduction that suits these rows, and the share of their variance that its axes hold.

    Each axis points to where its largest entry is positive. Raises: ConfigError when the rows span fewer axes.
    """
    rows = z.double().cpu()
    mean = rows.mean(0)
    variances, vectors = torch.linalg.eigh(torch.cov(rows.T, correction=1).reshape(len(mean), len(mean)))
    variances, vectors = variances.flip(0), vectors.flip(1)
    n_axes = int((variances > _FLAT * variances[0]).sum())
    if config.dim > n_axes:
        raise ConfigError(
            "the representations have fewer axes than they are to be reduced to",
            got=f"{n_axes} axes in {len(rows)} training pictures of {len(mean)} numbers",
            expected=f"at least encoder.model.reduce.dim: {config.dim}",
            fix=f"set encoder.model.reduce.dim and rdm.model.dim to at most {n_axes}, or raise probe.max_images",
        )
    kept, axes = variances[: config.dim], vectors[:, : config.dim]
    axes = axes * torch.where(axes.gather(0, axes.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
    reduction = Reduction(len(mean), config.dim)
    reduction.mean.copy_(mean)
    reduction.axes.copy_(axes / (kept if config.whiten else kept.mean()).sqrt())
    return reduction, float(kept.sum() / variances.clamp(min=0).sum())
