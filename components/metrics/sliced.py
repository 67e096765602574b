"""Sliced Wasserstein distance of two sets of features: no covariance, hence of use from about a thousand images on."""

import numpy as np

from components.errors import ShapeError
from components.metrics.distances import chunks

N_DIRECTIONS = 1024
_AT_ONCE = 64


def sliced_wasserstein(x: np.ndarray, y: np.ndarray, *, seed: int, n_directions: int = N_DIRECTIONS) -> float:
    """d times the mean over random directions of the squared 2-Wasserstein distance of the projected sets.

    With d in front, two equal clouds that are shifted against each other are as far apart as for the Frechet distance:
    the square of the shift. Sets of different sizes are compared exactly, by their quantile functions.
    Shapes: (n, d), (m, d). Paper: 2605.06797 (MIND). Differs: the paper's factor and number of directions are not
    known here, so values are comparable with each other, not with the paper's tables. Raises: ShapeError.
    """
    if x.ndim != 2 or x.shape[1:] != y.shape[1:] or not min(len(x), len(y)):
        raise ShapeError("two sets of features must have one width and a row", got=(x.shape, y.shape))
    d, draw, total = x.shape[1], np.random.default_rng(seed), 0.0
    weight, left, right = _coupling(len(x), len(y))
    for start in range(0, n_directions, _AT_ONCE):
        u = draw.standard_normal((d, min(_AT_ONCE, n_directions - start)))
        u /= np.linalg.norm(u, axis=0)
        a, b = (
            np.sort(np.concatenate([rows.astype(np.float64) @ u for rows in chunks(part)]), axis=0) for part in (x, y)
        )
        total += float((weight @ np.square(a[left] - b[right])).sum())
    return float(d * total / n_directions)


def _coupling(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How sorted samples of n and m points are moved onto each other: mass, index in the one, index in the other."""
    ends = np.unique(np.concatenate([np.arange(n + 1) * m, np.arange(m + 1) * n]))  # in units of 1 / (n m), exact
    return np.diff(ends) / (n * m), ends[:-1] // m, ends[:-1] // n
