"""What the Frechet distance of few images is worth: its value at infinitely many, and an interval by resampling.

Any finite set is too far from the reference: the bias falls as 1 / n and is larger for some generators than for others
(1911.07023). Distances here are taken over rows where these are fewer than features, which costs min(n, m)^2 max(n, m).
"""

from dataclasses import dataclass

import numpy as np

from components.metrics.frechet import frechet_distance
from components.metrics.gaussian import Gaussian

_N_SIZES, _SMALLEST = 10, 0.3


@dataclass(frozen=True)
class Target:
    """What distances are to: a Gaussian, the features it was fitted to where they are known, and these centered where
    they are few."""

    gaussian: Gaussian
    features: np.ndarray | None
    centered: np.ndarray | None

    @classmethod
    def of(cls, gaussian: Gaussian, features: np.ndarray | None) -> "Target":
        """Shapes: (m, d) or None."""
        if features is None or len(features) >= features.shape[1]:
            return cls(gaussian, features, None)
        return cls(gaussian, features, features.astype(np.float64) - gaussian.mean)

    def distance(self, features: np.ndarray, fitted: Gaussian | None = None) -> float:
        """Frechet distance of features (n, d), whose Gaussian may be known already.

        tr((cov_a cov_b)^(1/2)) is the sum of the singular values of A B^T / sqrt((n - 1)(m - 1)) for centered rows A
        and B: their squares are the eigenvalues of cov_a cov_b that are not 0. Raises: ShapeError, DataError.
        """
        n, d = features.shape
        if self.centered is None or n >= d:
            return frechet_distance(self.gaussian, fitted or Gaussian.fit(features))
        x = features.astype(np.float64)
        mean = x.mean(axis=0)
        x = x - mean
        shift, m = mean - self.gaussian.mean, len(self.centered)
        cross = np.linalg.svd(x @ self.centered.T, compute_uv=False).sum() / np.sqrt((n - 1) * (m - 1))
        traces = np.square(x).sum() / (n - 1) + np.square(self.centered).sum() / (m - 1)
        return float(max(0.0, shift @ shift + traces - 2 * cross))


def at_infinity(features: np.ndarray, target: Target, *, seed: int) -> float:
    """Intercept of a line through the distances of ten subsets, over 1 / size: the distance without the images' bias.

    The bias of the target's own size stays in. Paper: 1911.07023, section 4. Differs: the subsets hold 30 % to 100 %
    of the images, not 5,000 and more, and are the starts of one random order. Raises: ShapeError, DataError.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    sizes = np.unique(np.linspace(max(2, _SMALLEST * len(features)), len(features), _N_SIZES).astype(int))
    distances = [_distance(features, order[:size], target) for size in sizes]
    if len(sizes) < 2:
        return distances[0]
    return float(np.polyfit(1 / sizes, distances, 1)[1])


def resampled_interval(
    features: np.ndarray, target: Target, *, n_draws: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """How far the distance would spread over other samples of the same sizes, around its value on these.

    Both sets are resampled with replacement; of a target that is statistics alone, only the images are. Repeated rows
    lift every draw, so only the draws' spread about their own mean is used. The bias of the distance itself, which any
    finite set has, stays in. Shapes: (n, d). Raises: ShapeError, DataError.
    """
    draw = np.random.default_rng(seed)
    value, draws = target.distance(features), []
    for _ in range(n_draws):
        other = target
        if target.features is not None:
            rows = draw.integers(len(target.features), size=len(target.features))
            few = target.centered is not None
            other = Target.of(Gaussian.fit(target.features, rows), target.features[rows] if few else None)
        draws.append(_distance(features, draw.integers(len(features), size=len(features)), other))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    shift = value - float(np.mean(draws))
    return max(0.0, float(low) + shift), max(0.0, float(high) + shift)


def _distance(features: np.ndarray, rows: np.ndarray, target: Target) -> float:
    if target.centered is not None and len(rows) < features.shape[1]:
        return target.distance(features[rows])
    return frechet_distance(target.gaussian, Gaussian.fit(features, rows))
