"""Distances by rows against a general matrix root, the limit of many images, and the interval."""

import numpy as np
import pytest
import scipy.linalg

from components.metrics.finite_sample import Target, at_infinity, resampled_interval
from components.metrics.frechet import frechet
from components.metrics.gaussian import Gaussian


def _textbook(x: np.ndarray, y: np.ndarray) -> float:
    cx, cy = np.cov(x.T), np.cov(y.T)
    eps = 1e-12 * np.eye(len(cx))
    root = scipy.linalg.sqrtm((cx + eps) @ (cy + eps)).real
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cx + cy - 2 * root))


def _target(y: np.ndarray) -> Target:
    return Target.of(Gaussian.fit(y), y)


@pytest.mark.parametrize(("n", "m"), [(5, 7), (7, 5), (6, 40), (40, 6), (40, 50)])
def test_fewer_rows_than_features_and_more(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 12)), rng.normal(size=(m, 12)) * 2 + 1
    assert _target(y).distance(x) == pytest.approx(_textbook(x, y), rel=1e-5)
    assert _target(y).distance(x) == pytest.approx(frechet(x, y), rel=1e-6)


def test_identical_sets_are_at_zero() -> None:
    for size in ((5, 12), (40, 12)):
        x = np.random.default_rng(0).normal(size=size) * 100
        assert _target(x).distance(x) == pytest.approx(0, abs=1e-6)


def test_the_limit_takes_the_bias_of_few_images_off() -> None:
    rng = np.random.default_rng(0)
    d, shift = 8, 0.5
    target = Target.of(Gaussian(np.zeros(d), np.eye(d)), None)
    plain, limit = [], []
    for trial in range(12):
        x = rng.normal(size=(300, d)) + shift
        plain.append(target.distance(x))
        limit.append(at_infinity(x, target, seed=trial))
    truth = d * shift**2
    assert abs(np.mean(limit) - truth) < 0.5 * abs(np.mean(plain) - truth)


def test_interval_covers_the_true_distance() -> None:
    rng = np.random.default_rng(2)
    shift, hits = 1.0, 0
    for trial in range(30):
        x, y = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + np.array([shift, 0.0])
        low, high = resampled_interval(x, _target(y), n_draws=100, seed=trial)
        hits += low <= shift**2 <= high
    assert hits >= 24


def test_interval_is_seeded_and_holds_the_distance_by_rows_and_by_moments() -> None:
    rng = np.random.default_rng(1)
    for size, d in ((200, 2), (20, 30)):
        x, y = rng.normal(size=(size, d)), rng.normal(size=(size, d)) + 1
        low, high = resampled_interval(x, _target(y), n_draws=50, seed=0)
        assert low < _target(y).distance(x) < high
        assert (low, high) == resampled_interval(x, _target(y), n_draws=50, seed=0)
        assert (low, high) != resampled_interval(x, _target(y), n_draws=50, seed=4)
