"""How far new vectors lie from old ones, in units of how far old ones lie from each other."""

import numpy as np

from components.metrics.frechet import frechet_distance
from components.metrics.gaussian import Gaussian

_FEWEST = 10


def frechet_ratio(new: np.ndarray, old: np.ndarray) -> float:
    """Frechet distance of new to old vectors over that between two halves of the old ones: about 1 without a change.

    The halves are random. Infinite with fewer than 10 vectors in a half or among the new: nothing is known then.
    Vectors are projected to at most a fifth of the number of new ones, so that covariances have full rank.

    Shapes: (n, dim), (m, dim).
    """
    old = old[np.random.default_rng(0).permutation(len(old))]
    half = len(old) // 2
    if min(len(new), half) < _FEWEST:
        return float("inf")
    dim = max(1, min(new.shape[1], len(new) // 5))
    first, *others = (Gaussian.fit(part) for part in (old[:half], old[half:], new))
    axes = first.axes(dim)
    target = first.seen_in(axes, first.mean)
    apart, away = (frechet_distance(target, one.seen_in(axes, first.mean)) for one in others)
    return away / max(apart, 1e-12)
