"""Grids and PNG bytes: pixels end where they should, and equal pixels give equal files."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from components.errors import ShapeError
from components.images.pictures import BACKGROUND, GAP, grid, png_bytes, rows_grid, scaled, to_float, to_uint8


def _tiles(n: int, px: int = 4) -> np.ndarray:
    return np.stack([np.full((px, px, 3), 10 * i, np.uint8) for i in range(n)])


def test_grid_places_images_row_by_row() -> None:
    picture = grid(_tiles(5), columns=3, shown_px=4)
    assert picture.shape == (2 * 4 + 3 * GAP, 3 * 4 + 4 * GAP, 3)
    for i in range(5):
        top, left = GAP + (i // 3) * (4 + GAP), GAP + (i % 3) * (4 + GAP)
        assert (picture[top : top + 4, left : left + 4] == 10 * i).all()
    assert (picture[-GAP - 4 :, -GAP - 4 :] == BACKGROUND).all()


def test_grid_is_nearly_square_by_default() -> None:
    assert grid(_tiles(10), shown_px=4).shape == (3 * 4 + 4 * GAP, 4 * 4 + 5 * GAP, 3)


def test_small_images_grow_by_a_whole_factor_without_new_colors() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    large = scaled(images, 48)
    assert large.shape == (2, 48, 48, 3)
    assert (large[:, ::6, ::6] == images).all()
    assert (large[:, 5::6, 5::6] == images).all()


def test_large_images_shrink_to_block_means() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 320, 320, 3)).astype(np.uint8)
    small = scaled(images)
    assert small.shape == (1, 160, 160, 3)
    assert small[0, 3, 5, 1] == np.rint(images[0, 6:8, 10:12, 1].mean())


def test_rows_grid_puts_matching_images_above_each_other() -> None:
    first, second = _tiles(5), _tiles(5) + 100
    picture = rows_grid([first, second], shown_px=4, folds=2)
    band = 2 * 4 + 3 * GAP
    assert picture.shape[0] == 2 * band + 4 * GAP
    assert (picture[GAP : GAP + 4, GAP : GAP + 4] == 0).all()
    assert (picture[2 * GAP + 4 : 2 * GAP + 8, GAP : GAP + 4] == 100).all()
    lower = band + 4 * GAP + GAP
    assert (picture[lower : lower + 4, GAP : GAP + 4] == 30).all()


def test_png_is_lossless_and_has_no_metadata() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    data = png_bytes(picture)
    image = Image.open(io.BytesIO(data))
    assert (np.asarray(image) == picture).all()
    assert image.info == {}
    assert data == png_bytes(picture.copy())


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    assert (to_uint8(to_float(images)) == images).all()
    assert to_uint8(torch.tensor([-1.0, 2.0, 0.5]).reshape(1, 3, 1, 1)).ravel().tolist() == [0, 255, 128]


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8)]
)
def test_other_layouts_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        grid(bad)
    with pytest.raises(ShapeError):
        png_bytes(bad[..., :2])
