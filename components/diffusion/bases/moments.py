"""k Gaussians out of rows: k-means, then mean and deviation of each cluster; and how well they describe the rows.

z: rows, k: number of Gaussians, c: the one that a row belongs to.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from components.base import Metrics
from components.conditions.clustering import kmeans, spherical_kmeans
from components.conditions.frequencies import shares
from components.errors import ConfigError
from components.spacing import evenly_spaced

_MOST_CLUSTERED = 65_536
"""Rows, evenly spaced, that k-means reads; moments are those of all rows."""
_AT_A_TIME = 16_384
_PRIOR_ROWS = 10.0
"""Rows of the pooled deviation that are added to each cluster, so that one of a single row has a deviation."""
_LEAST_SHARE, _LEAST = 0.05, 1e-4
"""Smallest deviation: share of the pooled one's root mean square over coordinates, and absolute."""
_CONSTANT_NORM = 0.01
"""Relative deviation of the norms below which rows count as lying on a sphere."""


class Moments(NamedTuple):
    """Diagonal Gaussians. spherical: rows belong to the mean of the largest cosine, else to the nearest one."""

    mean: Float[Tensor, "k dim"]
    std: Float[Tensor, "k dim"]
    spherical: Bool[Tensor, ""]


def moments(z: Float[Tensor, "n dim"], k: int, *, seed: int) -> Moments:
    """Means of the clusters; deviations per coordinate, shrunk towards those within all clusters together, and floored.

    All in float64. k-means is spherical where the rows have one norm, as RCG's representations have. An empty cluster
    keeps its centroid and the pooled deviation. Raises: ConfigError for more Gaussians than rows.
    """
    n = len(z)
    if n < k:
        fix = f"set rdm.model.base.k to at most {n}"
        raise ConfigError("more Gaussians than training rows", got=f"k: {k}", expected=f"at most {n}", fix=fix)
    z = z.detach().double().cpu()
    norms = z.norm(dim=1)
    spherical = norms.std(correction=0) <= _CONSTANT_NORM * norms.mean()
    rows = z[evenly_spaced(n, _MOST_CLUSTERED)]
    centroids = spherical_kmeans(rows, k, seed=seed) * norms.mean() if spherical else kmeans(rows, k, seed=seed)
    owner = nearest(z, centroids, spherical=bool(spherical))
    counts = torch.bincount(owner, minlength=k).double()[:, None]
    sums = torch.zeros_like(centroids).index_add_(0, owner, z)
    mean = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    squares = torch.zeros_like(mean).index_add_(0, owner, (z - mean[owner]).square())
    pooled = squares.sum(0) / n
    variance = (squares + _PRIOR_ROWS * pooled) / (counts + _PRIOR_ROWS)
    least = max(_LEAST, _LEAST_SHARE * float(pooled.mean().sqrt()))
    return Moments(mean, variance.sqrt().clamp(min=least), spherical)


def nearest(z: Float[Tensor, "n dim"], means: Float[Tensor, "k dim"], *, spherical: bool) -> Int[Tensor, " n"]:
    """The mean that each row belongs to: of the largest cosine, or of the least distance."""
    offset = z.new_zeros(()) if spherical else -0.5 * means.square().sum(1)
    keys = (nn.functional.normalize(means, dim=1) if spherical else means).T
    return torch.cat([(part @ keys + offset).argmax(1) for part in torch.split(z, _AT_A_TIME)])


def described(z: Float[Tensor, "n dim"], owner: Int[Tensor, " n"], k: int) -> Metrics:
    """Share of the rows' variance that lies between their components, how many of these are occupied, and the smallest.

    occupancy: perplexity of the frequencies, k where all are equal.
    """
    z, owner = z.double().cpu(), owner.cpu()
    counts = torch.bincount(owner, minlength=k)
    sums = z.new_zeros(k, z.shape[1]).index_add_(0, owner, z)
    mean = sums / counts[:, None].clamp(min=1)
    within, total = (z - mean[owner]).square().sum(), (z - z.mean(0)).square().sum()
    share = shares(owner, k)
    return {
        "base_explained_variance": float(1 - within / total.clamp(min=1e-12)),
        "base_occupancy": float(torch.special.entr(share).sum().exp()),
        "base_smallest": float(counts.min()),
    }
