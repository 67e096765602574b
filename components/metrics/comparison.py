"""Is one generator worse than another? The difference of their Frechet distances to the same real images."""

from dataclasses import dataclass

import numpy as np

from components.errors import ShapeError
from components.metrics.frechet import frechet_distance
from components.metrics.gaussian import Gaussian


@dataclass(frozen=True)
class Difference:
    """Frechet distance of `second` minus that of `first`, and a bootstrap interval around it."""

    first: float
    second: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.second - self.first


def compare(
    first: np.ndarray, second: np.ndarray, real: np.ndarray, *, n_draws: int, level: float, seed: int
) -> Difference:
    """Both sets are measured against the same real features, and resampled together.

    Row i of `first` and row i of `second` were drawn from the same noise, so each resample takes the same rows of both
    and the same real rows: what the two have in common cancels. Repeated rows lift a distance of finite sets, and
    nearly equally for both; what is left of that is removed by centering the draws on their mean.
    Shapes: (n, d), (n, d), (m, d). Raises: ShapeError.
    """
    if first.shape != second.shape:
        raise ShapeError("models are compared on equally many images", got=second.shape, expected=first.shape)
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(n_draws):
        rows = generator.integers(len(first), size=len(first))
        target = Gaussian.fit(real, generator.integers(len(real), size=len(real)))
        draws.append(_distance(second[rows], target) - _distance(first[rows], target))
    target = Gaussian.fit(real)
    a, b = _distance(first, target), _distance(second, target)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    shift = b - a - float(np.mean(draws))
    return Difference(a, b, float(low) + shift, float(high) + shift)


def _distance(features: np.ndarray, target: Gaussian) -> float:
    return frechet_distance(target, Gaussian.fit(features))
