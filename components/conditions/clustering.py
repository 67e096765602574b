"""k-means, spherical and plain.

k: number of clusters.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

_KMEANS_STEPS = 100
_KMEANS_STARTS = 4


def spherical_kmeans(z: Float[Tensor, "n dim"], k: int, *, seed: int) -> Float[Tensor, "k dim"]:
    """Unit centroids that maximize the summed cosine to their rows; the best of a few seeded k-means++ starts.

    Paper: Dhillon & Modha 2001 (spherical k-means); Arthur & Vassilvitskii 2007 (the seeding).
    """
    unit = nn.functional.normalize(z.detach().double().cpu(), dim=1)
    generator = torch.Generator().manual_seed(seed)
    best, best_score = unit[:k], -float("inf")
    for _ in range(_KMEANS_STARTS):
        first = _plus_plus(unit, k, generator, lambda one: (1 - unit @ one).clamp(min=0))
        centroids = _lloyd(unit, first, lambda means: (unit @ means.T).argmax(1), _direction)
        score = float((unit @ centroids.T).amax(1).sum())
        if score > best_score:
            best, best_score = centroids, score
    return best.to(z.dtype)


def clusters(z: Float[Tensor, "n dim"], k: int, *, seed: int) -> list[Int64[Tensor, " rows"]]:
    """Rows of each cluster that spherical_kmeans finds, nearest to its centroid first; empty clusters are left out."""
    cosine = nn.functional.normalize(z, dim=1) @ spherical_kmeans(z, k, seed=seed).T
    owner = cosine.argmax(1)
    rows = [torch.nonzero(owner == c)[:, 0] for c in range(k)]
    return [its[cosine[its, c].argsort(descending=True, stable=True)] for c, its in enumerate(rows) if len(its)]


def kmeans(z: Float[Tensor, "n dim"], k: int, *, seed: int) -> Float[Tensor, "k dim"]:
    """Centroids that minimize the summed squared distance of rows to the nearest; the best of a few seeded starts."""
    rows = z.detach().double().cpu()
    generator = torch.Generator().manual_seed(seed)
    best, best_score = rows[:k], float("inf")
    for _ in range(_KMEANS_STARTS):
        first = _plus_plus(rows, k, generator, lambda one: (rows - one).square().sum(1))
        centroids = _lloyd(rows, first, lambda means: (rows @ means.T - 0.5 * means.square().sum(1)).argmax(1), _mean)
        score = float(torch.cdist(rows, centroids).amin(1).square().sum())
        if score < best_score:
            best, best_score = centroids, score
    return best.to(z.dtype)


def _plus_plus(rows: Tensor, k: int, generator: torch.Generator, distances: Callable[[Tensor], Tensor]) -> Tensor:
    """k rows, each sampled in proportion to its distance to those already taken."""
    picked = [int(torch.randint(len(rows), (1,), generator=generator))]
    distance = torch.full((len(rows),), float("inf"), dtype=rows.dtype)
    for _ in range(k - 1):
        distance = torch.minimum(distance, distances(rows[picked[-1]]))
        weight = distance if float(distance.sum()) > 0 else torch.ones_like(distance)
        picked.append(int(torch.multinomial(weight, 1, generator=generator)))
    return rows[picked]


def _lloyd(
    rows: Tensor,
    centroids: Tensor,
    nearest: Callable[[Tensor], Tensor],
    center: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Until no row moves; an empty cluster, which has no center, keeps its centroid."""
    owner = torch.full((len(rows),), -1)
    for _ in range(_KMEANS_STEPS):
        now = nearest(centroids)
        if torch.equal(now, owner):
            break
        owner = now
        sums = torch.zeros_like(centroids).index_add_(0, owner, rows)
        centers = center(sums, torch.bincount(owner, minlength=len(centroids)))
        centroids = torch.where(centers.isnan(), centroids, centers)
    return centroids


def _direction(sums: Tensor, _: Tensor) -> Tensor:
    empty = sums.norm(dim=1) == 0
    return torch.where(empty[:, None], torch.nan, nn.functional.normalize(sums, dim=1))


def _mean(sums: Tensor, counts: Tensor) -> Tensor:
    return sums / counts[:, None]
