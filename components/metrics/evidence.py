"""Exact tests: what of a difference may be chance. Nothing here is asymptotic, so few pictures are no excuse."""

import math

import numpy as np

from components.errors import ShapeError
from components.metrics.distances import squared_distances

LEVEL = 0.05
"""A difference counts when chance alone makes one as large less often than this: the 95% of every interval here."""


def binomial_tail(hits: int, n: int, share: float) -> float:
    """P(X >= hits) for X ~ Binomial(n, share), summed term by term in logarithms; 1 where n is 0."""
    if hits <= 0 or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    terms = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(share)
        + (n - k) * math.log1p(-share)
        for k in range(hits, n + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, terms)))


def sign_test(better: np.ndarray, worse: np.ndarray) -> float:
    """P value of `better` holding more often than `worse`, row by row: the exact test of McNemar, one-sided.

    Rows where both agree say nothing; of the others, as many should go either way if nothing differs.
    Shapes: (n,), (n,) bool.
    """
    if better.shape != worse.shape:
        raise ShapeError("rows are compared in pairs", got=better.shape, expected=worse.shape)
    for_it, against = int((better & ~worse).sum()), int((worse & ~better).sum())
    return binomial_tail(for_it, for_it + against, 0.5)


def energy_test(a: np.ndarray, b: np.ndarray, *, n_draws: int, seed: int) -> tuple[float, float]:
    """Energy distance of two sets of vectors, 2 E|a - b| - E|a - a'| - E|b - b'|, and the P value of its being chance.

    The distance is zero only for equal distributions, whatever their shape, and has no parameter. Row i of `b` is made
    of row i of `a`: if that changed nothing, both may change places. The P value is the share of random exchanges of
    rows after which the sets are as far apart, the sets as they are counted as one of them; so the test errs no more
    often than its level, with any number of rows, and what the rows of a pair have in common does not blur it.
    Shapes: (n, d), (n, d). Paper: Szekely and Rizzo 2004, "Testing for equal distributions in high dimension".
    Differs: rows are exchanged within pairs. Raises: ShapeError.
    """
    if a.shape != b.shape:
        raise ShapeError("rows are exchanged in pairs", got=b.shape, expected=a.shape)
    pool = np.concatenate([a, b])
    distances = np.sqrt(squared_distances(pool, pool))
    np.fill_diagonal(distances, 0.0)
    generator = np.random.default_rng(seed)
    seen = _energy(distances, np.zeros(len(a), bool))
    draws = [_energy(distances, generator.random(len(a)) < 0.5) for _ in range(n_draws)]
    # what is equal counts as equal: a distance of 0 comes out as a root of the last digits, about 1e-8 of the others
    as_far = sum(draw >= seen - 1e-7 * distances.mean() for draw in draws)
    return seen, (1 + as_far) / (1 + n_draws)


def _energy(distances: np.ndarray, swapped: np.ndarray) -> float:
    """Of the first half of the rows to the second, with some pairs swapped. Means over all pairs (V-statistic)."""
    sign = np.where(np.concatenate([swapped, ~swapped]), -1.0, 1.0)
    return float(-(sign @ distances @ sign) / len(swapped) ** 2)
