"""Moments that add up: any split of the rows gives numpy's mean and covariance."""

import numpy as np
import pytest

from components.errors import DataError, ShapeError
from components.metrics.moments import Moments


@pytest.mark.parametrize("cuts", [[], [1], [3, 4, 20], [10, 20]])
def test_any_split_gives_the_covariance_of_the_whole_also_far_from_the_origin(cuts: list[int]) -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)) @ np.diag([1, 2, 3, 4.0]) + 1e6
    parts = [Moments.of(part) for part in np.split(x, cuts)]
    total = sum(parts[1:], Moments.empty(4) + parts[0])
    fitted = total.gaussian()
    assert total.n == 30
    assert fitted.mean == pytest.approx(x.mean(0), rel=1e-12)
    assert fitted.cov == pytest.approx(np.cov(x.T), rel=1e-6, abs=1e-8)


def test_bad_features() -> None:
    with pytest.raises(DataError, match="1 of 2 rows"):
        Moments.of(np.array([[1.0, np.inf], [0, 0]]))
    with pytest.raises(ShapeError, match="two rows"):
        Moments.of(np.zeros((1, 2))).gaussian()
