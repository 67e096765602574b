"""Blockiness and equivalent resolution on pictures whose answers are known."""

import numpy as np
import pytest

from components.errors import ShapeError
from components.metrics.controls import resized_down
from components.metrics.frechet import frechet
from components.metrics.looks import blockiness, equivalent_px, own_period, sizes_px, worst_blockiness

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (60, 32, 32, 3)).astype(np.uint8)
MOSAIC = RNG.integers(0, 256, (20, 8, 8, 3)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)


def test_what_knows_no_patches_has_one() -> None:
    assert blockiness(NOISE, 4) == pytest.approx(1, abs=0.01)
    ramp = np.arange(32, dtype=np.uint8)[None, :, None, None] + np.arange(32, dtype=np.uint8)[None, None, :, None]
    assert blockiness(np.broadcast_to(ramp * 2, (1, 32, 32, 3)), 8) == 1


def test_steps_at_borders_are_weighed_against_steps_inside() -> None:
    """Along both axes: three steps of 2 inside a patch of 4 pixels, then one of 10."""
    line = np.concatenate([[0], np.cumsum(np.tile([2, 2, 2, 10], 8))])[:16].astype(np.uint8)
    image = (line[:, None] + line[None, :])[None, :, :, None].repeat(3, axis=3)
    assert blockiness(image, 4) == pytest.approx(5)
    assert blockiness(image, 2) == pytest.approx(((4 * 2 + 3 * 10) / 7) / 2)


def test_the_worst_period_is_that_of_the_mosaic() -> None:
    period, mine, real = worst_blockiness(MOSAIC, NOISE, (2, 4, 8, 64))
    assert (period, real) == (4, pytest.approx(1, abs=0.02))
    assert mine > 100
    assert worst_blockiness(MOSAIC, MOSAIC, (4,))[1] == worst_blockiness(MOSAIC, MOSAIC, (4,))[2]
    with pytest.raises(ShapeError, match="too small"):
        worst_blockiness(NOISE[:, :2, :2], NOISE[:, :2, :2], (2, 4))
    with pytest.raises(ShapeError, match="no patches"):
        blockiness(NOISE, 32)


def test_a_generators_own_patches_in_pixels_of_the_image() -> None:
    latents = {"shape": [4, 8, 8], "image_px": 64}
    assert own_period({"model": {"patch": 2}, "data": {"target": latents}}) == 16
    assert own_period({"model": {"stride": 4}, "data": {"target": {"shape": [3, 64, 64], "image_px": 64}}}) == 4
    assert own_period({"model": {}, "data": {"target": latents}}) == 8
    assert own_period({"model": {}}) is None


def test_pictures_shrunk_to_a_size_are_equivalent_to_it() -> None:
    smooth = resized_down(NOISE, 16)  # something that half the side still shows
    half, other = smooth[:30], smooth[30:]

    def distance(images: np.ndarray) -> float:
        """Features that see resolution: mean steps of neighbors in both directions."""
        x = [np.abs(np.diff(images.astype(float), axis=axis)).mean(axis=(1, 2, 3)) for axis in (1, 2)]
        y = [np.abs(np.diff(other.astype(float), axis=axis)).mean(axis=(1, 2, 3)) for axis in (1, 2)]
        return frechet(np.stack(x, axis=1), np.stack(y, axis=1))

    sizes = sizes_px(32)
    assert sizes == [32, 24, 16, 12, 8, 6, 4, 3, 2]
    distances = [distance(resized_down(half, size)) for size in sizes]
    assert equivalent_px(distance(resized_down(half, 8)), sizes, distances) == pytest.approx(8)
    assert 8 < equivalent_px(distance(resized_down(half, 10)), sizes, distances) < 12


def test_between_and_beyond_the_sizes() -> None:
    assert equivalent_px(0.5, [32, 16, 8], [1, 2, 4]) == 32
    assert equivalent_px(1.5, [32, 16, 8], [1, 2, 4]) == pytest.approx(32 / 2**0.5)
    assert equivalent_px(2.5, [32, 16, 8], [1, 3, 2]) == pytest.approx(32 / 2**0.75), "8 is no nearer than 16"
    assert equivalent_px(9, [32, 16, 8], [1, 2, 4]) == 8
    with pytest.raises(ShapeError, match="fall"):
        equivalent_px(1, [8, 16], [1, 2])
