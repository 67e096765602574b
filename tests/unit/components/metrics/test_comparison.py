"""The difference of two models' distances: its value, its interval's coverage, and what pairing gains."""

import numpy as np
import pytest

from components.errors import ShapeError
from components.metrics.comparison import compare
from components.metrics.frechet import frechet

D, N = 4, 200


def _draw(seed: int, shift: float, n: int = N) -> np.ndarray:
    """Standard normal rows whose distance to a centered standard normal is shift squared, up to sampling."""
    x = np.random.default_rng(seed).normal(size=(n, D))
    x[:, 0] += shift
    return x


def test_value_is_the_difference_of_the_distances_and_lies_in_the_interval() -> None:
    a, b, real = _draw(0, 0.3), _draw(1, 0.6), _draw(2, 0.0)
    d = compare(a, b, real, n_draws=100, level=0.95, seed=0)
    assert d.first == pytest.approx(frechet(a, real))
    assert d.value == pytest.approx(frechet(b, real) - frechet(a, real))
    assert d.low < d.value < d.high


def test_same_images_do_not_differ_at_all() -> None:
    a = _draw(0, 0.3)
    d = compare(a, a, _draw(2, 0.0), n_draws=30, level=0.95, seed=0)
    assert (d.value, d.low, d.high) == (0.0, 0.0, 0.0)


def test_same_seed_same_interval_and_swapping_turns_it_around() -> None:
    a, b, real = _draw(0, 0.3), _draw(1, 0.4), _draw(2, 0.0)
    d = compare(a, b, real, n_draws=60, level=0.9, seed=3)
    assert d == compare(a, b, real, n_draws=60, level=0.9, seed=3)
    turned = compare(b, a, real, n_draws=60, level=0.9, seed=3)
    assert (turned.low, turned.high) == pytest.approx((-d.high, -d.low))


def test_images_of_the_same_noise_make_the_interval_narrower() -> None:
    a, real = _draw(0, 0.5), _draw(2, 0.0)
    near = a + 0.05 * np.random.default_rng(5).normal(size=a.shape)
    paired = compare(a, near, real, n_draws=80, level=0.95, seed=0)
    unpaired = compare(a, near[::-1], real, n_draws=80, level=0.95, seed=0)
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)


def test_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    expected = [0.5**2, 0.8**2]
    trials, hits = 60, 0
    for i in range(trials):
        a, b = _draw(3 * i, 0.5), _draw(3 * i + 1, 0.8)
        d = compare(a, b, _draw(3 * i + 2, 0.0), n_draws=60, level=0.9, seed=i)
        hits += d.low <= expected[1] - expected[0] <= d.high
    assert 0.78 <= hits / trials <= 0.99


def test_unequal_numbers_of_images_are_refused() -> None:
    with pytest.raises(ShapeError, match="equally many"):
        compare(_draw(0, 0.1), _draw(1, 0.1, n=50), _draw(2, 0.0), n_draws=20, level=0.9, seed=0)
