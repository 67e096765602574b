"""Precision, recall, density and coverage of generated images: k-nearest-neighbor manifolds in a feature space."""

import numpy as np

from components.errors import ConfigError
from components.metrics.distances import chunks, squared_distances


def precision_recall(real: np.ndarray, generated: np.ndarray, *, k: int) -> tuple[float, float]:
    """Share of generated features inside the manifold of the real ones, and the other way round.

    Shapes: (n, d), (m, d). Paper: 1904.06991, eq. 1-3. Raises: ConfigError when a set has no k-th neighbor.
    """
    check_neighbors(k, len(real), len(generated))
    inside = _balls_around(generated, real, _squared_radii(real, k)) > 0
    covered = _balls_around(real, generated, _squared_radii(generated, k)) > 0
    return float(inside.mean()), float(covered.mean())


def density_coverage(real: np.ndarray, generated: np.ndarray, *, k: int) -> tuple[float, float]:
    """How many real balls a generated feature lies in, over k, and the share of real balls that hold a generated one.

    Density expects 1 where both are alike, and may be more. Shapes: (n, d), (m, d). Paper: 2002.09797, eq. 4 and 6.
    Raises: ConfigError when the real set has no k-th neighbor.
    """
    check_neighbors(k, len(real), len(generated))
    radii = _squared_radii(real, k)
    density = float(_balls_around(generated, real, radii).mean() / k)
    return density, float((_nearest_squared(real, generated) <= radii).mean())


def check_neighbors(k: int, n_real: int, n_generated: int) -> None:
    """Raises: ConfigError when a set has no k-th neighbor."""
    if min(n_real, n_generated) <= k:
        raise ConfigError(
            "precision and recall have fewer images than neighbors",
            got=f"{n_real} real and {n_generated} generated images, k = {k}",
            expected=f"more than {k} of each",
            fix="lower evaluate.k_neighbors, draw more samples (sample.n), or hold more images out (collect.split)",
        )


def inside(queries: np.ndarray, reference: np.ndarray, *, k: int) -> np.ndarray:
    """Whether each query lies within some reference point's distance to its k-th neighbor. Shapes: (n, d), (m, d)."""
    return _balls_around(queries, reference, _squared_radii(reference, k)) > 0


def _squared_radii(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of every row to its k-th neighbor among the other rows."""
    radii, start = [], 0
    for block in chunks(x):
        best, column = np.full((len(block), 0), np.inf), 0
        for others in chunks(x):
            d2 = squared_distances(block, others)
            if column == start:
                d2[np.arange(len(block)), np.arange(len(block))] = np.inf
            best = np.concatenate([best, d2], axis=1)
            best = np.partition(best, min(k, best.shape[1]) - 1, axis=1)[:, :k]
            column += len(others)
        radii.append(best.max(axis=1))
        start += len(block)
    return np.concatenate(radii)


def _balls_around(queries: np.ndarray, reference: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """(n,) number of reference points within whose squared radius each query lies."""
    counts, start = np.zeros(len(queries), np.int64), 0
    for centers in chunks(reference):
        here = radii[start : start + len(centers)]
        counts += np.concatenate([(squared_distances(q, centers) <= here).sum(axis=1) for q in chunks(queries)])
        start += len(centers)
    return counts


def _nearest_squared(queries: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(n,) squared distance of each query to the nearest reference point."""
    found = [np.min([squared_distances(q, r).min(axis=1) for r in chunks(reference)], axis=0) for q in chunks(queries)]
    return np.concatenate(found)
