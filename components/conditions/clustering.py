"""Spherical k-means.

k: number of clusters.
"""

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
        centroids = _lloyd(unit, _plus_plus(unit, k, generator))
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


def _plus_plus(unit: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k rows, each sampled in proportion to its distance (1 - cosine) to those already taken."""
    picked = [int(torch.randint(len(unit), (1,), generator=generator))]
    distance = torch.full((len(unit),), float("inf"), dtype=unit.dtype)
    for _ in range(k - 1):
        distance = torch.minimum(distance, (1 - unit @ unit[picked[-1]]).clamp(min=0))
        weight = distance if float(distance.sum()) > 0 else torch.ones_like(distance)
        picked.append(int(torch.multinomial(weight, 1, generator=generator)))
    return unit[picked]


def _lloyd(unit: Tensor, centroids: Tensor) -> Tensor:
    owner = torch.full((len(unit),), -1)
    for _ in range(_KMEANS_STEPS):
        nearest = (unit @ centroids.T).argmax(1)
        if torch.equal(nearest, owner):
            break
        owner = nearest
        sums = torch.zeros_like(centroids).index_add_(0, owner, unit)
        empty = sums.norm(dim=1) == 0  # an empty cluster keeps its centroid
        centroids = torch.where(empty[:, None], centroids, nn.functional.normalize(sums, dim=1))
    return centroids
