"""Frechet distance between two sets of features, each summarized by a Gaussian. All in float64."""

import numpy as np

from components.metrics.gaussian import Gaussian


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mean_a - mean_b|^2 + tr(cov_a) + tr(cov_b) - 2 tr((cov_a cov_b)^(1/2)).

    Paper: 1706.08500, eq. 6. Differs: the trace of the root is taken over the symmetric product
    cov_a^(1/2) cov_b cov_a^(1/2), which has the same eigenvalues and needs no complex matrix root.
    """
    product = a.root @ b.cov @ a.root
    cross = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(0)).sum()
    shift = a.mean - b.mean
    return float(max(0.0, shift @ shift + np.trace(a.cov) + np.trace(b.cov) - 2 * cross))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of two feature sets. Shapes: (n, d), (m, d)."""
    return frechet_distance(Gaussian.fit(a), Gaussian.fit(b))


def principal_axes(features: np.ndarray, n_axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and the leading principal axes (d, n_axes). Raises: ShapeError, DataError."""
    fitted = Gaussian.fit(features)
    return fitted.mean, fitted.axes(n_axes)
