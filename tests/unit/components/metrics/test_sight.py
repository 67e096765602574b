"""A judge on spoiled pictures, and the exact tests behind the verdict, against enumerations of every case."""

from itertools import product
from math import comb

import numpy as np
import pytest

from components.errors import ShapeError
from components.metrics.controls import CONTROLS, blurred, noise, resized_down, shuffled
from components.metrics.evidence import binomial_tail, energy_test, sign_test
from components.metrics.sight import Control, Sight, halves, look
from tests.support.folders import draw_bars

IMAGES, _ = draw_bars(120)


def _see_pixels(images: np.ndarray) -> np.ndarray:
    """A judge that sees: the brightest row and the brightest column."""
    gray = images[..., 0].astype(np.float64)
    return np.stack([gray.mean(axis=1).max(axis=1), gray.mean(axis=2).max(axis=1)], axis=1)


def _verdict(see: object, n: int = 120) -> Sight:
    split = halves(lambda rows: IMAGES[rows], n, see, seed=0)  # type: ignore[arg-type]
    return look(split, see, k=3, seed=0)  # type: ignore[arg-type]


def test_a_judge_that_looks_is_not_blind() -> None:
    sight = _verdict(_see_pixels)
    assert (sight.blind, sight.precision_blind, sight.n) == (False, False, 60)
    assert sight.controls["noise"].fd > 5 * sight.fd_real
    assert sight.controls["noise"].precision < 0.1
    m = sight.metrics()
    assert (m["judge_blind"], m["control_fd_noise"]) == (0, sight.controls["noise"].fd)


def test_a_judge_that_has_not_learned_its_labels_is_blind_though_it_tells_noise_from_pictures() -> None:
    split = halves(lambda rows: IMAGES[rows], 120, _see_pixels, seed=0)
    sight = look(split, _see_pixels, k=3, seed=0, unlearned="it names 50% right")
    assert sight.reasons == ["it names 50% right"]
    assert (sight.blind, sight.precision_blind) == (True, False)


@pytest.mark.parametrize(
    ("see", "says"),
    [
        (lambda images: np.random.default_rng(int(images.sum())).normal(size=(len(images), 3)), ""),
        # the mean of a picture is the same however its patches lie
        (lambda images: images.mean(axis=(1, 2)).astype(np.float64)[:, :2], "shuffled patches from pictures"),
        (lambda images: np.zeros((len(images), 2)), "noise from pictures"),
    ],
    ids=["random", "mean", "constant"],
)
def test_a_judge_that_does_not_look_is_blind_and_it_is_said_why(see: object, says: str) -> None:
    sight = _verdict(see)
    assert sight.blind
    assert sight.metrics()["judge_blind"] == 1
    assert any(says in reason for reason in sight.reasons)


def test_noise_that_lies_in_the_middle_of_the_pictures_blinds_precision_alone() -> None:
    """Whatever has no bar is put at the center of what has one: far as a set, and near picture by picture."""

    def see(images: np.ndarray) -> np.ndarray:
        z = _see_pixels(images)
        scatter = np.random.default_rng(len(images)).normal(size=z.shape)
        return np.where((z.max(axis=1) > 250)[:, None], scatter, 0.1 * scatter)

    sight = _verdict(see)
    assert sight.controls["noise"].p_distance <= 0.05
    assert sight.precision_blind


@pytest.mark.parametrize(("p_distance", "blind"), [(0.001, False), (0.002, True)])
def test_what_passes_picture_by_picture_but_never_as_a_set_blinds_precision_alone(
    p_distance: float, blind: bool
) -> None:
    """As textures do, whose shuffled patches are textures."""
    passes = Control(fd=100.0, precision=0.97, recall=0.1, p_distance=p_distance, p_precision=0.9)
    sight = Sight(60, 5.0, 0.95, 0.9, {"noise": passes, "shuffled": passes})
    assert (sight.blind, sight.precision_blind) == (blind, True)


def test_few_pictures_prove_nothing() -> None:
    assert _verdict(_see_pixels, 6).blind


def test_blurring_keeps_colors_and_a_full_side_changes_nothing() -> None:
    assert np.array_equal(resized_down(IMAGES, 8), IMAGES)
    assert blurred(IMAGES).mean() == pytest.approx(IMAGES.mean(), abs=5)
    before, after = (np.abs(np.diff(images.astype(int), axis=1)).mean() for images in (IMAGES, blurred(IMAGES)))
    assert after < 0.5 * before
    with pytest.raises(ShapeError, match="1 to 8"):
        resized_down(IMAGES, 9)


@pytest.mark.parametrize("px", [4, 8, 11])
def test_every_patch_is_moved_and_none_is_lost(px: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, px, px, 3)).astype(np.uint8)
    moved, patch = shuffled(images, 3), px // 4
    assert np.array_equal(moved[:, 4 * patch :], images[:, 4 * patch :])
    parts = [slice(start, start + patch) for start in range(0, 4 * patch, patch)]
    cells = [(rows, columns) for rows in parts for columns in parts]
    for before, after in zip(images, moved, strict=True):
        assert all(not np.array_equal(before[cell], after[cell]) for cell in cells)
        assert sorted(before[cell].tobytes() for cell in cells) == sorted(after[cell].tobytes() for cell in cells)
    assert not np.array_equal(moved, shuffled(images, 4))


def test_noise_keeps_the_colors_of_each_pixel() -> None:
    made = noise(IMAGES, 1)
    assert np.array_equal(np.sort(made[..., 0], axis=0), np.sort(IMAGES[..., 0], axis=0))
    assert not any((made == image).all(axis=(1, 2, 3)).any() for image in IMAGES)
    assert list(CONTROLS) == ["blurred", "shuffled", "noise"]


@pytest.mark.parametrize(("hits", "n", "share"), [(0, 5, 0.5), (3, 5, 0.5), (5, 5, 0.1), (40, 100, 0.3), (2, 0, 0.5)])
def test_binomial_tail_is_the_sum_of_its_terms(hits: int, n: int, share: float) -> None:
    exact = sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(hits, n + 1))
    assert binomial_tail(hits, n, share) == pytest.approx(exact, rel=1e-9)


def test_sign_test_counts_only_rows_that_differ() -> None:
    better = np.array([True] * 9 + [False] * 3)
    worse = np.array([False] * 5 + [True] * 4 + [True, False, False])
    assert sign_test(better, worse) == pytest.approx(sum(comb(6, k) for k in (5, 6)) / 2**6)
    assert sign_test(better, better) == 1


def test_energy_test_agrees_with_all_exchanges() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(7, 2))
    b = a + rng.normal(0.3, 1, size=(7, 2))

    def energy(a: np.ndarray, b: np.ndarray) -> float:
        def mean(x: np.ndarray, y: np.ndarray) -> float:
            return float(np.mean([[np.linalg.norm(i - j) for j in y] for i in x]))

        return 2 * mean(a, b) - mean(a, a) - mean(b, b)

    every = []
    for swap in product([False, True], repeat=7):
        rows = np.array(swap)[:, None]
        every.append(energy(np.where(rows, b, a), np.where(rows, a, b)))
    value, p = energy_test(a, b, n_draws=4000, seed=0)
    assert value == pytest.approx(energy(a, b))
    assert 0.05 < p < 0.95
    assert p == pytest.approx(np.mean(np.array(every) >= value - 1e-9), abs=0.03)
    with pytest.raises(ShapeError, match="pairs"):
        energy_test(a, b[:3], n_draws=1, seed=0)


def test_equal_sets_are_not_told_apart() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    assert energy_test(x, x, n_draws=99, seed=0)[1] > 0.5
