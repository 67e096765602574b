"""Frechet distance between two sets of features, each summarized by a Gaussian. All in float64."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from components.errors import DataError, ShapeError


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and unbiased covariance (d, d) of a set of features."""

    mean: np.ndarray
    cov: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> "Gaussian":
        """Shapes: (n, d), n >= 2. Raises: ShapeError for fewer rows, DataError for features that are not finite."""
        if features.ndim != 2 or len(features) < 2:
            raise ShapeError(
                "a Gaussian needs at least two rows of features", got=features.shape, expected="(n >= 2, d)"
            )
        x = features.astype(np.float64)
        if not np.isfinite(x).all():
            raise DataError(
                "features are not finite", got=f"{int((~np.isfinite(x)).any(axis=1).sum())} of {len(x)} rows"
            )
        mean = x.mean(axis=0)
        centered = x - mean
        return cls(mean, centered.T @ centered / (len(x) - 1))

    @cached_property
    def root(self) -> np.ndarray:
        """Symmetric root of the covariance (d, d)."""
        values, vectors = np.linalg.eigh(self.cov)
        root: np.ndarray = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        return root


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


def bootstrap_interval(
    a: np.ndarray, b: np.ndarray, *, n_draws: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """How far frechet(a, b) would spread over other samples of the same sizes, around its value on these.

    Both sets are resampled with replacement. Repeated rows lift every draw, so only the draws' spread about their own
    mean is used. The bias of the distance itself, which any finite set has, stays in: the floor has it too.
    """
    generator = np.random.default_rng(seed)
    draws = [
        frechet(a[generator.integers(len(a), size=len(a))], b[generator.integers(len(b), size=len(b))])
        for _ in range(n_draws)
    ]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    shift = frechet(a, b) - float(np.mean(draws))
    return max(0.0, float(low) + shift), max(0.0, float(high) + shift)


def principal_axes(features: np.ndarray, n_axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and the leading principal axes (d, n_axes), the sign fixed so that the largest entry is positive."""
    fitted = Gaussian.fit(features)
    _, vectors = np.linalg.eigh(fitted.cov)
    axes = vectors[:, ::-1][:, :n_axes]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return fitted.mean, axes * np.where(signs == 0, 1, signs)
