"""Moments that add up: any split of the rows, or a choice of them, gives numpy's mean and covariance."""

import numpy as np
import pytest

from components.errors import DataError, ShapeError
from components.metrics.gaussian import Gaussian, Moments


@pytest.mark.parametrize("cuts", [[], [1], [3, 4, 20], [10, 20]])
def test_any_split_gives_the_covariance_of_the_whole_also_far_from_the_origin(cuts: list[int]) -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)) @ np.diag([1, 2, 3, 4.0]) + 1e6
    parts = [Moments.of(part) for part in np.split(x, cuts)]
    total = sum(parts[1:], Moments.empty(4) + parts[0])
    fitted = total.gaussian()
    assert total.n == 30
    assert fitted.mean == pytest.approx(x.mean(0), rel=1e-12)
    assert fitted.cov == pytest.approx(np.cov(x.T), rel=1e-6, abs=1e-8)


def test_a_fit_goes_in_blocks_of_all_rows_or_of_repeated_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.metrics.gaussian.CHUNK", 4)
    x = np.random.default_rng(2).normal(size=(10, 3))
    rows = np.array([0, 0, 5, 9, 9, 9, 1, 2, 3])
    assert Gaussian.fit(x).cov == pytest.approx(np.cov(x.T))
    assert Gaussian.fit(x, rows).cov == pytest.approx(np.cov(x[rows].T))


@pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.zeros(3), np.zeros((0, 3))])
def test_too_few_rows(bad: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="two rows"):
        Gaussian.fit(bad)


def test_features_that_are_not_finite_are_counted() -> None:
    with pytest.raises(DataError, match="1 of 2 rows"):
        Gaussian.fit(np.array([[1.0, np.inf], [0, 0]]))


def test_a_gaussian_seen_in_axes_is_that_of_the_projected_features() -> None:
    x = np.random.default_rng(3).normal(size=(50, 5)) @ np.random.default_rng(4).normal(size=(5, 5)) + 7
    whole = Gaussian.fit(x)
    axes = whole.axes(2)
    seen, projected = whole.seen_in(axes, whole.mean - 1), Gaussian.fit((x - whole.mean + 1) @ axes)
    assert seen.mean == pytest.approx(projected.mean)
    assert seen.cov == pytest.approx(projected.cov)
