"""Means and covariances of features that come in batches, or from several workers: added up, in flat memory."""

from dataclasses import dataclass

import numpy as np

from components.errors import DataError, ShapeError
from components.metrics.frechet import Gaussian


@dataclass(frozen=True)
class Moments:
    """Count, mean (d,) and scatter (d, d), the sum of outer products about the mean. All in float64."""

    n: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, dim: int) -> "Moments":
        """Of no features."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, features: np.ndarray) -> "Moments":
        """Of one batch. Shapes: (n, d), n >= 1. Raises: ShapeError, DataError for features that are not finite."""
        if features.ndim != 2 or not len(features):
            raise ShapeError("not a batch of features", got=features.shape, expected="(n >= 1, d)")
        x = features.astype(np.float64)
        if not np.isfinite(x).all():
            bad = int((~np.isfinite(x)).any(axis=1).sum())
            raise DataError("features are not finite", got=f"{bad} of {len(x)} rows")
        mean = x.mean(axis=0)
        centered = x - mean
        return cls(len(x), mean, centered.T @ centered)

    def __add__(self, other: "Moments") -> "Moments":
        """Of both sets. Paper: Chan, Golub and LeVeque 1979, eq. 2.1: no digits are lost far from the origin."""
        n = self.n + other.n
        if not self.n or not other.n:
            return other if not self.n else self
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.n / n)
        scatter = self.scatter + other.scatter + np.outer(shift, shift) * (self.n * other.n / n)
        return Moments(n, mean, scatter)

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance. Raises: ShapeError for fewer than two features."""
        if self.n < 2:
            raise ShapeError("a Gaussian needs at least two rows of features", got=self.n, expected="2 or more")
        return Gaussian(self.mean, self.scatter / (self.n - 1))
