"""Kernel distances between two sets of features: unbiased at any number of images, unlike the Frechet distance.

x, y: features (n, d) and (m, d); k: a kernel. The squared maximum mean discrepancy is
mean k(x, x') + mean k(y, y') - 2 mean k(x, y), over pairs of different rows (Gretton et al. 2012, eq. 3): about 0, also
below it, for two samples of one distribution.
"""

from collections.abc import Callable

import numpy as np

from components.errors import ShapeError
from components.metrics.distances import chunks, squared_distances

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]

_SUBSET, _N_SUBSETS = 1000, 100
"""Of KID, as every implementation has them since its authors'."""
_BANDWIDTH, _SCALE = 10.0, 1000.0
"""Of CMMD: sigma, and the factor that makes the number readable."""


def kid(x: np.ndarray, y: np.ndarray, *, seed: int) -> float:
    """Kernel inception distance: kernel (x.y / d + 1)^3, averaged over 100 random subsets of 1,000 rows of each set.

    Sets of at most 1,000 rows are compared whole, which is the mean over all subsets. Paper: 1801.01401, section 4.
    Raises: ShapeError.
    """
    size = min(len(x), len(y), _SUBSET)
    if max(len(x), len(y)) <= _SUBSET:
        return mmd2(x, y, cubic)
    draw = np.random.default_rng(seed)
    subsets = (
        (x[draw.choice(len(x), size, replace=False)], y[draw.choice(len(y), size, replace=False)])
        for _ in range(_N_SUBSETS)
    )
    return float(np.mean([mmd2(a, b, cubic) for a, b in subsets]))


def cmmd(x: np.ndarray, y: np.ndarray) -> float:
    """1,000 times the squared discrepancy of directions (x / |x|) under a Gaussian kernel with sigma 10.

    Paper: 2401.09603, section 4, for CLIP's image embeddings. Differs: the authors' code counts each row with itself,
    too, which adds about 10 / n; the estimator here is the unbiased one. Raises: ShapeError.
    """
    return _SCALE * mmd2(_directions(x), _directions(y), gaussian)


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shapes: (n, d), (m, d) -> (n, m)."""
    base: np.ndarray = x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1
    cube: np.ndarray = base * base * base  # `** 3` takes 2 to 20 times as long, negative numbers longest
    return cube


def gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shapes: (n, d), (m, d) -> (n, m)."""
    kernel: np.ndarray = np.exp(-squared_distances(x, y) / (2 * _BANDWIDTH**2))
    return kernel


def mmd2(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> float:
    """Unbiased squared maximum mean discrepancy, block by block. Raises: ShapeError for fewer than two rows."""
    if min(len(x), len(y)) < 2 or x.shape[1:] != y.shape[1:]:
        raise ShapeError("two sets of features must have one width and two rows", got=(x.shape, y.shape))
    return _within(x, kernel) + _within(y, kernel) - 2 * _total(x, y, kernel) / (len(x) * len(y))


def _within(x: np.ndarray, kernel: Kernel) -> float:
    total = 0.0
    for i, a in enumerate(chunks(x)):
        for j, b in enumerate(chunks(x)):
            block = kernel(a, b)
            total += float(block.sum() - (np.trace(block) if i == j else 0))
    return total / (len(x) * (len(x) - 1))


def _total(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> float:
    return sum(float(kernel(a, b).sum()) for a in chunks(x) for b in chunks(y))


def _directions(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    out: np.ndarray = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
    return out
