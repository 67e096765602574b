"""Editing in steps: the mask that is painted, the way back, and what a step was made of."""

from pathlib import Path

import numpy as np
import pytest

from components.bundle.bundle import Bundle
from components.bundle.edits import read_edit, read_picture
from components.bundle.request import Edit, Picture, Request
from components.errors import ConfigError, DataError
from components.images.pictures import png_bytes, to_uint8
from flows.play.editing import CANVAS_PX, History, canvas, mask_of
from tests.support.bundles import make_bundle
from tests.support.folders import PX, draw_bars


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(make_bundle(tmp_path_factory.mktemp("rcg")).root)


def _picture(width: int = PX, height: int = PX) -> Picture:
    rng = np.random.default_rng(0)
    return Picture(png_bytes(rng.integers(0, 255, (height, width, 3)).astype(np.uint8)), "a.png")


def test_the_canvas_shows_the_center_square_pixel_by_pixel(bundle: Bundle) -> None:
    shown = canvas(_picture(24, 8), bundle.card.decode, 8)
    assert shown.shape == (CANVAS_PX, CANVAS_PX, 3)
    times = CANVAS_PX // 8
    whole = np.asarray(read_picture(_picture(24, 8), bundle.card.decode))
    assert (shown[::times, ::times] == whole[:, 8:16]).all()
    assert (shown[times - 1 :: times, times - 1 :: times] == whole[:, 8:16]).all()
    with pytest.raises(DataError, match=r"note\.txt cannot be used"):
        canvas(Picture(b"text", "note.txt"), bundle.card.decode, 8)


@pytest.mark.parametrize(("width", "height"), [(PX, PX), (24, 8), (9, 31), (700, 1100)])
def test_the_mask_covers_what_was_painted_of_pictures_of_any_aspect(bundle: Bundle, width: int, height: int) -> None:
    picture, painted = _picture(width, height), np.zeros((CANVAS_PX, CANVAS_PX), dtype=bool)
    painted[: CANVAS_PX // 2] = True
    edit = Edit(image=picture, mask=mask_of(painted, picture, bundle.card.decode))
    known = read_edit(edit, bundle.card.decode, 8).known[0].numpy()
    assert not known[:4].any()
    assert known[4:].all()


def test_a_stroke_thinner_than_a_pixel_counts_and_no_stroke_is_refused(bundle: Bundle) -> None:
    painted = np.zeros((CANVAS_PX, CANVAS_PX), dtype=bool)
    with pytest.raises(ConfigError, match=r"covers nothing[\s\S]*paint over"):
        mask_of(painted, _picture(), bundle.card.decode)
    painted[100:104, 200:340] = True
    edit = Edit(image=_picture(), mask=mask_of(painted, _picture(), bundle.card.decode))
    known = read_edit(edit, bundle.card.decode, PX).known[0].numpy()
    assert np.argwhere(~known).tolist() == [[1, 3], [1, 4], [1, 5]]


def test_steps_are_kept_chosen_from_and_undone(bundle: Bundle) -> None:
    first = Picture(png_bytes(draw_bars(1)[0][0]), "first.png")
    painted = np.zeros((CANVAS_PX, CANVAS_PX), dtype=bool)
    painted[:, : CANVAS_PX // 2] = True
    history = History.of(first)
    assert history.undone() == history
    assert history.sources == ()
    mask = mask_of(painted, history.picture, bundle.card.decode)
    made = to_uint8(bundle.sample(Request(n=2, edit=Edit(image=history.picture, mask=mask))))
    pictures = tuple(Picture(png_bytes(image), f"{i}.png") for i, image in enumerate(made))
    once = history.filled(mask, pictures)
    other = once.choose(1)
    assert (once.picture, other.picture) == pictures
    assert other.way == (first, pictures[1])
    assert [source.data for source in other.sources] == [first.data, mask.data]
    assert [source.name for source in other.sources] == ["step1-image.png", "step1-mask.png"]
    twice = other.filled(mask, pictures)
    assert [source.data for source in twice.sources] == [pictures[1].data, mask.data]
    assert twice.undone() == other
    assert twice.undone().undone() == history


def test_messages_do_not_name_the_server_s_files(tmp_path: Path) -> None:
    from flows.play.asking import asked

    (tmp_path / "a.png").write_bytes(b"text")
    request = asked({"like": str(tmp_path / "a.png")})
    assert request.like is not None
    assert request.like.name == "a.png"
