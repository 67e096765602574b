"""The sliced Wasserstein distance: against repeated rows, and for a shift, whose answer is known."""

import numpy as np
import pytest

from components.errors import ShapeError
from components.metrics.sliced import sliced_wasserstein


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 7), (9, 6)])
def test_sets_of_any_sizes_match_sets_of_repeated_rows(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) * 2 + 1
    u = np.random.default_rng(5).standard_normal((3, 8))
    u /= np.linalg.norm(u, axis=0)
    a, b = np.sort(np.repeat(x, m, axis=0) @ u, axis=0), np.sort(np.repeat(y, n, axis=0) @ u, axis=0)
    expected = 3 * np.square(a - b).mean(axis=0).mean()
    assert sliced_wasserstein(x, y, seed=5, n_directions=8) == pytest.approx(expected, rel=1e-10)


def test_a_shift_costs_its_square_and_equal_sets_nothing() -> None:
    rng = np.random.default_rng(0)
    x, shift = rng.normal(size=(50, 5)), np.array([3.0, 0, 4, 0, 0])
    assert sliced_wasserstein(x, x + shift, seed=0) == pytest.approx(25, rel=0.1)
    assert sliced_wasserstein(x, x[::-1], seed=0) == 0


def test_other_widths_are_refused() -> None:
    with pytest.raises(ShapeError, match="one width"):
        sliced_wasserstein(np.zeros((3, 2)), np.zeros((3, 4)), seed=0)
