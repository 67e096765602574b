"""Rows of pictures with what was asked for under them."""

import numpy as np
import pytest
from PIL import ImageFont

from components.images.captioned import broken_into_lines, captioned_rows
from components.images.pictures import GAP, SHOWN_PX


def images(n: int, value: int) -> np.ndarray:
    return np.full((n, 8, 8, 3), value, np.uint8)


def test_each_row_has_its_pictures_and_its_text_under_them() -> None:
    picture = captioned_rows([("a red blot", images(6, 0)), ("", images(6, 100))])
    band = SHOWN_PX + 2 * GAP
    strip = (picture.shape[0] - 2 * band) // 2
    assert picture.shape[1] == 6 * (SHOWN_PX + GAP) + GAP
    assert (picture[GAP : GAP + SHOWN_PX, GAP] == 0).all()
    text = picture[band : band + strip]
    assert 0.005 < (text < 128).mean() < 0.3
    assert (picture[band + strip + GAP : 2 * band + strip - GAP, GAP] == 100).all()
    assert picture.tobytes() == captioned_rows([("a red blot", images(6, 0)), ("", images(6, 100))]).tobytes()


def test_a_single_small_picture_leaves_room_for_its_text() -> None:
    assert captioned_rows([("a blot", images(1, 0))]).shape[1] >= 240
    assert captioned_rows([("x", images(5, 0))], columns=2).shape[0] > 3 * SHOWN_PX


@pytest.mark.parametrize(
    ("caption", "n"),
    [("short", 1), ("two lines of some words that go on for a bit", 2), ("word " * 60, 3), ("x" * 200, 3)],
)
def test_long_texts_are_broken_and_cut(caption: str, n: int) -> None:
    font = ImageFont.load_default(15)
    lines = broken_into_lines(caption.strip(), 240, font)
    assert len(lines) == n
    assert all(font.getlength(line) <= 245 for line in lines)
    assert (
        "".join(lines).rstrip("…").replace(" ", "")
        == caption.replace(" ", "")[: len("".join(lines).rstrip("…").replace(" ", ""))]
    )
    assert lines[-1].endswith("…") == (n == 3)
