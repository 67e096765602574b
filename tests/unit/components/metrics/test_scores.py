"""Inception score, class histogram and memorization, from their formulas."""

import math

import numpy as np
import pytest

from components.errors import ShapeError
from components.metrics.histogram import class_counts, entropy, kl_divergence
from components.metrics.inception_score import inception_score
from components.metrics.memorization import memorization


def test_inception_score_of_certain_and_even_predictions_is_the_number_of_classes() -> None:
    assert inception_score(np.eye(4).repeat(5, axis=0)) == pytest.approx(4)


def test_inception_score_of_one_answer_is_one() -> None:
    assert inception_score(np.full((6, 3), 1 / 3)) == pytest.approx(1)
    assert inception_score(np.eye(3)[[0, 0, 0]]) == pytest.approx(1)


def test_inception_score_matches_a_loop() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), size=12)
    marginal = [sum(row[j] for row in p) / 12 for j in range(5)]
    kl = [sum(row[j] * math.log(row[j] / marginal[j]) for j in range(5)) for row in p]
    assert inception_score(p) == pytest.approx(math.exp(sum(kl) / 12))


def test_inception_score_refuses_logits() -> None:
    with pytest.raises(ShapeError, match="probabilities"):
        inception_score(np.ones((4, 3)))


def test_class_counts_leave_unlabeled_rows_out() -> None:
    assert class_counts(np.array([2, -1, 0, 2, -1]), 4).tolist() == [1, 0, 2, 0]


def test_entropy() -> None:
    assert entropy(np.array([5, 5, 5, 5])) == pytest.approx(math.log(4))
    assert entropy(np.array([7, 0, 0])) == 0
    assert entropy(np.array([1, 3])) == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))


def test_kl_is_zero_for_equal_shares_and_punishes_a_dropped_class() -> None:
    real = np.array([10, 10, 10])
    assert kl_divergence(real, np.array([10, 10, 10])) == pytest.approx(0)
    dropped, uneven = kl_divergence(real, np.array([15, 15, 0])), kl_divergence(real, np.array([14, 10, 6]))
    assert math.isfinite(dropped)
    assert dropped > 5 * uneven > 0


def test_memorization_sees_copies_and_not_new_images() -> None:
    rng = np.random.default_rng(1)
    train, held_out, new = rng.normal(size=(300, 4)), rng.normal(size=(200, 4)), rng.normal(size=(400, 4))
    honest = memorization(new, held_out, train, percentile=10)
    assert honest.share == pytest.approx(0.1, abs=0.06)
    assert honest.ratio == pytest.approx(1, abs=0.15)

    half = np.concatenate([new[:200], train[:200] + 1e-6])
    copied = memorization(half, held_out, train, percentile=10, k=2)
    assert copied.share == pytest.approx(0.55, abs=0.06)
    assert set(copied.closest(200).tolist()) == set(range(200, 400))
    assert copied.neighbor[200:, 0].tolist() == list(range(200))
    assert copied.neighbor.shape == (400, 2)
    assert len(copied.floor) == 200


def test_inception_score_of_parts_is_their_mean_a_short_last_one_included() -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(4), size=11)
    parts = [inception_score(p[:4]), inception_score(p[4:8]), inception_score(p[8:])]
    assert inception_score(p, chunk=4) == pytest.approx(sum(parts) / 3)
