"""A look at the pictures: number, sizes, color, labels, captions; and what no training could learn from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.collection.packaged import ScansSource
from components.collection.source import FolderSource, open_source
from components.errors import DataError
from flows.execution.budget.survey import Survey, look
from flows.execution.budget.telling import seen_lines
from tests.support.archives import write_tar

Draw = Callable[[int], np.ndarray]


def _noise(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (12, 10 + i % 3, 3)).astype(np.uint8)


def _folder(root: Path, n: int, draw: Draw = _noise, *, folders: int = 1) -> FolderSource:
    for i in range(n):
        path = root / f"{i % folders}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(i)).save(path)
    return FolderSource(root)


def test_the_demo_is_gray_labeled_and_small() -> None:
    found = look(ScansSource())
    assert (found.n, found.side, found.largest) == (1797, 8, 8)
    assert (found.channels, found.labels, found.n_classes) == (1, "metadata", 10)
    assert found.elongated == found.constant == found.unreadable == 0
    assert 0 < found.read_s < 0.1


def test_sizes_color_and_folders(tmp_path: Path) -> None:
    def draw(i: int) -> np.ndarray:
        return _noise(i)[:, :4] if i % 4 == 0 else _noise(i)

    found = look(_folder(tmp_path, 80, draw, folders=2))
    assert (found.n, found.n_looked_at, found.smallest, found.largest) == (80, 80, 4, 12)
    assert found.channels == 3
    assert found.elongated == 0.25
    assert (found.labels, found.n_classes) == ("folder", 2)
    gray = look(_folder(tmp_path / "gray", 60, lambda i: _noise(i)[:, :, :1].repeat(3, 2)))
    assert (gray.color, gray.channels, gray.labels) == (0, 1, "none")


def _sprite(i: int) -> np.ndarray:
    """A small figure in the middle of an even ground: at a glance all are one."""
    image = np.full((60, 60, 3), 255, np.uint8)
    image[20:40, 20:40] = np.random.default_rng(i).integers(0, 120, (4, 4, 3)).repeat(5, 0).repeat(5, 1)
    return image


def test_small_figures_on_an_even_ground_are_not_taken_for_one_picture(tmp_path: Path) -> None:
    assert look(_folder(tmp_path / "noise", 80)).near_bits == 4
    found = look(_folder(tmp_path / "sprites", 80, _sprite))
    assert found.near_bits < 4
    assert any("look alike at a glance" in line for line in seen_lines(found))
    mixed = look(_folder(tmp_path / "mixed", 80, lambda i: _sprite(i) if i < 4 else _noise(i)))
    assert mixed.near_bits == 4


def test_labels_and_captions_of_metadata(tmp_path: Path) -> None:
    source = _folder(tmp_path, 60)
    rows = [f"0/{i:03d}.png,{'ab'[i % 2]},{'a picture' if i < 5 else ''}" for i in range(60)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label,text", *rows]))
    found = look(source)
    assert (found.labels, found.n_classes, found.n_captioned) == ("metadata", 2, 5)


def test_one_folder_for_each_picture_is_no_class(tmp_path: Path) -> None:
    assert look(_folder(tmp_path, 60, folders=60)).labels == "none"


@pytest.mark.parametrize(("names", "labels"), [(("x-00", "x-01"), "none"), (("cats", "dogs"), "folder")])
def test_numbered_archives_are_no_classes(tmp_path: Path, names: tuple[str, str], labels: str) -> None:
    _folder(tmp_path / "loose", 60, folders=2)
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        files = {path.name: path.read_bytes() for path in (tmp_path / "loose" / str(i)).iterdir()}
        write_tar(tmp_path / "in" / f"{name}.tar", files)
    assert look(open_source(str(tmp_path / "in"))).labels == labels


def test_some_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    source = _folder(tmp_path, 60, lambda i: np.full((8, 8, 3), 7, np.uint8) if i < 6 else _noise(i))
    for i in range(10, 25):
        (tmp_path / "0" / f"{i:03d}.png").write_bytes(b"no picture")
    found = look(source)
    assert found.unreadable == 0.25
    assert found.constant == 6 / 45


@pytest.mark.parametrize(
    ("n", "draw", "message"),
    [
        (59, _noise, "too few pictures"),
        (60, lambda _: _noise(0), r"all alike(?s:.)*near-duplicates"),
        (60, lambda i: np.full((8, 8, 3), i, np.uint8), r"all alike(?s:.)*one color each"),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(tmp_path: Path, n: int, draw: Draw, message: str) -> None:
    with pytest.raises(DataError, match=message):
        look(_folder(tmp_path, n, draw))


def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    source = _folder(tmp_path, 60)
    for path in list(tmp_path.rglob("*.png"))[:40]:
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="hardly any of the pictures can be read"):
        look(source)


def test_a_survey_is_what_the_shares_are_of(tmp_path: Path) -> None:
    found = look(_folder(tmp_path, 300))
    assert isinstance(found, Survey)
    assert (found.n, found.n_looked_at) == (300, 256)
