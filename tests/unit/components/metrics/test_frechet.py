"""Frechet distance: known Gaussians and an independent matrix root."""

import numpy as np
import pytest
import scipy.linalg

from components.metrics.frechet import frechet, frechet_distance, principal_axes
from components.metrics.gaussian import Gaussian


def test_isotropic_gaussians_have_a_closed_form() -> None:
    d = 5
    a = Gaussian(np.zeros(d), 4.0 * np.eye(d))
    b = Gaussian(np.full(d, 3.0), 9.0 * np.eye(d))
    assert frechet_distance(a, b) == pytest.approx(d * 9 + d * (3 - 2) ** 2, rel=1e-12)


def test_matches_the_textbook_formula_with_a_general_matrix_root() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)) + 1
    cx, cy = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(cx @ cy).real
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cx + cy - 2 * root)
    assert frechet(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet(y, x) == pytest.approx(expected, rel=1e-9)


def test_zero_for_equal_sets_and_for_any_rotation_of_both() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 4)) * 2
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(x @ turn, y @ turn) == pytest.approx(frechet(x, y), rel=1e-9)


def test_singular_covariances_are_fine() -> None:
    line = np.outer(np.arange(10.0), [1.0, 0.0])
    across = np.outer(np.arange(10.0), [0.0, 1.0])
    variance = np.arange(10.0).var(ddof=1)
    shift = 2 * np.arange(10.0).mean() ** 2
    assert frechet(line, across) == pytest.approx(shift + 2 * variance)


def test_principal_axes_find_the_longest_direction() -> None:
    rng = np.random.default_rng(3)
    direction = np.array([3.0, 4.0, 0.0]) / 5
    x = 7 + rng.normal(size=(500, 1)) * 10 * direction + rng.normal(size=(500, 3)) * 0.1
    mean, axes = principal_axes(x, 2)
    assert axes.shape == (3, 2)
    assert np.abs(axes[:, 0] - direction).max() < 0.01
    assert mean == pytest.approx(x.mean(axis=0))
