"""The named numbers: each against its own definition on data where the answer is known."""

import numpy as np
import pytest

from components.metrics.frechet import frechet
from components.metrics.measure import (
    Vectors,
    class_metrics,
    condition_metrics,
    mean_cosine,
    quality,
    representation_metrics,
)


def _vectors(shift: float = 0.0, d: int = 3) -> Vectors:
    rng = np.random.default_rng(0)
    sets = (rng.normal(size=(n, d)) for n in (200, 100, 150))
    train, held_out, generated = sets
    return Vectors(train, held_out, generated + shift)


def test_quality_has_a_floor_and_an_interval() -> None:
    x = _vectors(shift=1.0)
    m = quality(x, k=3, n_bootstrap=20, seed=0)
    assert m["fd"] == pytest.approx(frechet(x.generated, x.held_out))
    assert m["fd_floor"] == pytest.approx(frechet(x.train[np.random.default_rng(0).permutation(200)[:150]], x.held_out))
    assert m["fd_ratio"] == pytest.approx(m["fd"] / m["fd_floor"])
    assert m["fd_low"] < m["fd"] < m["fd_high"]
    assert m["precision"] < m["precision_real"]
    assert m == quality(x, k=3, n_bootstrap=20, seed=0)


def test_class_metrics() -> None:
    sure = np.eye(2)
    m = class_metrics(sure[[0, 0, 0, 1]], sure[[0, 1, 1, 0]], np.array([0, 1, 0, -1]))
    assert m["network_accuracy"] == pytest.approx(2 / 3)
    assert m["class_entropy"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert m["class_entropy_real"] == pytest.approx(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)))
    assert m["inception_score_real"] == pytest.approx(2)


def test_representation_distance_is_taken_in_a_fifth_as_many_axes_as_held_out_images() -> None:
    z = _vectors(d=50)
    m = representation_metrics(z)
    assert m["representation_axes"] == 20
    assert 0 < m["representation_variance"] < 1
    assert m["representation_fd_floor"] > 0


def test_all_axes_of_representations_keep_their_distances() -> None:
    z = _vectors(shift=0.5)
    m = representation_metrics(z)
    assert m["representation_variance"] == pytest.approx(1)
    assert m["representation_fd"] == pytest.approx(frechet(z.generated, z.held_out))
    assert m["representation_fd_floor"] == pytest.approx(frechet(z.train, z.held_out))


def test_cosines() -> None:
    a = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert mean_cosine(a, a * 5) == pytest.approx(1)
    assert mean_cosine(a[:2], a[[1, 0]]) == pytest.approx(0)
    m = condition_metrics(a, a)
    assert m["condition_cosine"] == pytest.approx(1)
    assert m["condition_cosine_shuffled"] == pytest.approx((2 * np.sqrt(0.5) + 0) / 3)
