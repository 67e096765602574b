"""Precision and recall of generated images: two k-nearest-neighbor manifolds in a feature space."""

import numpy as np

from components.errors import ConfigError
from components.metrics.distances import chunks, squared_distances


def precision_recall(real: np.ndarray, generated: np.ndarray, *, k: int) -> tuple[float, float]:
    """Share of generated features inside the manifold of the real ones, and the other way round.

    Shapes: (n, d), (m, d). Paper: 1904.06991, eq. 1-3. Raises: ConfigError when a set has no k-th neighbor.
    """
    if min(len(real), len(generated)) <= k:
        raise ConfigError(
            "precision and recall have fewer images than neighbors",
            got=f"{len(real)} real and {len(generated)} generated images, k = {k}",
            expected=f"more than {k} of each",
            fix="lower evaluate.k_neighbors, or draw more samples (sample.n)",
        )
    return _share_inside(generated, real, k), _share_inside(real, generated, k)


def _squared_radii(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of every row to its k-th neighbor among the other rows."""
    radii, start = [], 0
    for block in chunks(x):
        d2 = squared_distances(block, x)
        d2[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        radii.append(np.partition(d2, k - 1, axis=1)[:, k - 1])
        start += len(block)
    return np.concatenate(radii)


def _share_inside(queries: np.ndarray, reference: np.ndarray, k: int) -> float:
    """Share of queries that lie within some reference point's distance to its k-th neighbor."""
    radii = _squared_radii(reference, k)
    inside = np.concatenate([(squared_distances(block, reference) <= radii).any(axis=1) for block in chunks(queries)])
    return float(inside.mean())
