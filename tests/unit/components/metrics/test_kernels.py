"""Kernel distances against loops over all pairs, in float64."""

import itertools
import math

import numpy as np
import pytest

from components.errors import ShapeError
from components.metrics import distances
from components.metrics.kernels import cmmd, kid, mmd2


def _loops(x: np.ndarray, y: np.ndarray, kernel) -> float:
    within = [
        sum(kernel(a, b) for a, b in itertools.permutations(part, 2)) / (len(part) * (len(part) - 1)) for part in (x, y)
    ]
    return sum(within) - 2 * sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))


@pytest.mark.parametrize("chunk", [5, 4096])
def test_kid_is_the_unbiased_estimate_of_the_cubic_kernel(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(13, 4)), rng.normal(size=(9, 4)) + 0.5
    assert kid(x, y, seed=0) == pytest.approx(_loops(x, y, lambda a, b: (a @ b / 4 + 1) ** 3), rel=1e-9)


def test_cmmd_is_a_gaussian_kernel_of_directions() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(14, 3)) + 2

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        shift = a / np.linalg.norm(a) - b / np.linalg.norm(b)
        return math.exp(-(shift @ shift) / 200)

    assert cmmd(x, y) == pytest.approx(1000 * _loops(x, y, kernel), rel=1e-6)
    assert cmmd(x * 7, y) == pytest.approx(cmmd(x, y))


def test_kid_of_one_distribution_is_about_zero_on_either_side() -> None:
    rng = np.random.default_rng(2)
    values = [kid(rng.normal(size=(60, 3)), rng.normal(size=(60, 3)), seed=0) for _ in range(40)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(40)


def test_kid_of_many_images_is_a_seeded_mean_over_subsets() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(1400, 2)), rng.normal(size=(300, 2)) + 1
    whole = mmd2(x, y, lambda a, b: (a @ b.T / 2 + 1) ** 3)
    assert kid(x, y, seed=0) == pytest.approx(whole, rel=0.05)
    assert kid(x, y, seed=0) == kid(x, y, seed=0) != kid(x, y, seed=1)


def test_one_row_has_no_pairs() -> None:
    with pytest.raises(ShapeError, match="two rows"):
        kid(np.zeros((1, 2)), np.zeros((5, 2)), seed=0)
