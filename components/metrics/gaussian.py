"""What features are summarized by: moments, which add up batch by batch, and the Gaussian that they give."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from components.errors import DataError, ShapeError
from components.metrics.distances import CHUNK


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and unbiased covariance (d, d) of a set of features."""

    mean: np.ndarray
    cov: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, rows: np.ndarray | None = None) -> "Gaussian":
        """Of all rows, or of some, which may repeat; memory does not grow with them.

        Shapes: (n, d), n >= 2. Raises: ShapeError for fewer rows, DataError for features that are not finite.
        """
        if features.ndim != 2:
            raise ShapeError("a Gaussian needs two rows of features", got=features.shape, expected="(n >= 2, d)")
        found, n = Moments.empty(features.shape[1]), len(features if rows is None else rows)
        for start in range(0, n, CHUNK):
            block = slice(start, start + CHUNK)
            found = found + Moments.of(features[block if rows is None else rows[block]])
        return found.gaussian()

    @cached_property
    def root(self) -> np.ndarray:
        """Symmetric root of the covariance (d, d)."""
        values, vectors = np.linalg.eigh(self.cov)
        root: np.ndarray = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        return root

    def axes(self, n: int) -> np.ndarray:
        """The leading principal axes (d, n), the sign fixed so that the largest entry is positive."""
        _, vectors = np.linalg.eigh(self.cov)
        axes = vectors[:, ::-1][:, :n]
        signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        leading: np.ndarray = axes * np.where(signs == 0, 1, signs)
        return leading

    def seen_in(self, axes: np.ndarray, origin: np.ndarray) -> "Gaussian":
        """Of (features - origin) @ axes. Shapes: axes (d, k), origin (d,)."""
        return Gaussian((self.mean - origin) @ axes, axes.T @ self.cov @ axes)


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
            raise ShapeError("a Gaussian needs two rows of features", got=self.n, expected="2 or more")
        return Gaussian(self.mean, self.scatter / (self.n - 1))
