"""ImageIndex: the pictures of a collect artifact, by row."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.collection.images import ImageIndex, Pixels, class_ids, index_bytes, index_name, open_images, read_table
from components.collection.source import FolderSource
from components.errors import DataError
from components.images.config import DecodeRecipe
from tests.support.folders import FolderArtifact

SPLITS = ["train", "val", "train", "test", "none", "train"]
LABELS = ["cat", None, "dog", "cat", "dog", None]
DECODE = {"background": [255, 255, 255], "max_pixels": 10_000}


def _collect(root: Path, *, classes: Sequence[str] | None = ("cat", "dog")) -> FolderArtifact:
    rng = np.random.default_rng(0)
    (root / "in").mkdir(parents=True)
    rows = []
    for i, (split, label) in enumerate(zip(SPLITS, LABELS, strict=True)):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (10 + i, 12, 3)).astype(np.uint8)).save(buffer, "PNG")
        data, key = buffer.getvalue(), f"{i}.png"
        (root / "in" / key).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        facts = {"size": len(data), "width": 12, "height": 10 + i, "hash": bytes(16), "constant": False}
        rows.append({"key": key, "sha256": sha256, "split": split, "label": label, "caption": None} | facts)
    out = FolderArtifact(root / "collect")
    for name, part in (("c00000", rows[:4]), ("c00001", rows[4:])):
        out.write_bytes(index_name(name), index_bytes(part))
    chunks = [{"name": "c00000"}, {"name": "c00001"}]
    out.write_json("collection.json", {"schema": 1, "decode": DECODE, "classes": classes, "chunks": chunks})
    base = ["cat"] if classes else None
    out.write_json("base.json", {"schema": 1, "decode": DECODE, "classes": base, "chunks": chunks[1:]})
    return out


def _expected(root: Path, key: str, px: int) -> np.ndarray:
    image = Image.open(root / "in" / key)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.resize((px, px), Image.Resampling.BICUBIC, (left, top, left + side, top + side)))


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_labels_and_pixels_agree(tmp_path: Path, threads: int) -> None:
    collect = _collect(tmp_path)
    index = open_images(collect, str(tmp_path / "in"), base_only=False, threads=threads)
    assert len(index) == 6
    assert index.keys == [f"{i}.png" for i in range(6)]
    assert index.labels is not None
    assert index.labels.tolist() == [0, -1, 1, 0, 1, -1]
    train = index.split("train")
    assert train.keys == ["0.png", "2.png", "5.png"]
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1, -1]
    for _ in range(2):  # the second time out of the cache
        loaded = train.load(np.array([2, 0, 2]), 9)
        assert loaded.dtype == np.uint8
        for image, key in zip(loaded, ("5.png", "0.png", "5.png"), strict=True):
            assert (image == _expected(tmp_path, key, 9)).all()
    assert train.load([], 9).shape == (0, 9, 9, 3)
    assert train.each([1, 0], lambda i, image: (i, image.size)) == [(0, (12, 12)), (1, (12, 10))]


def test_base_only_knows_nothing_of_the_rest(tmp_path: Path) -> None:
    collect = _collect(tmp_path, classes=None)
    index = open_images(collect, str(tmp_path / "in"), base_only=True)
    assert index.keys == ["4.png", "5.png"]
    assert index.labels is None
    assert index.classes is None


def test_the_cache_is_bounded_and_spares_the_source(tmp_path: Path) -> None:
    collect = _collect(tmp_path)
    index = open_images(collect, str(tmp_path / "in"), base_only=False, cache_bytes=2 * 9 * 9 * 3 + 5)
    before = index.load(range(6), 9)
    (tmp_path / "in" / "1.png").unlink()  # among the two that fit
    assert (index.load([0, 1, 2], 9) == before[:3]).all()
    (tmp_path / "in" / "4.png").unlink()
    with pytest.raises(DataError, match=r"4\.png is gone"):
        index.load([4], 9)


def test_what_is_loaded_may_be_written_to(tmp_path: Path) -> None:
    index = open_images(_collect(tmp_path), str(tmp_path / "in"), base_only=False)
    first = index.load([0, 1], 8)
    kept = first.copy()
    first[:] = 0
    assert (index.load([0, 1], 8) == kept).all()


def test_a_changed_picture_is_refused_by_name(tmp_path: Path) -> None:
    index = open_images(_collect(tmp_path), str(tmp_path / "in"), base_only=False, cache_bytes=0)
    data = bytearray((tmp_path / "in" / "2.png").read_bytes())
    data[-1] ^= 1
    (tmp_path / "in" / "2.png").write_bytes(data)
    with pytest.raises(DataError, match=r"2\.png has changed"):
        index.load([0, 1, 2], 8)


def test_an_index_file_depends_on_its_rows_alone_and_maps_back(tmp_path: Path) -> None:
    collect = _collect(tmp_path)
    table = read_table([collect.path(index_name("c00000"))])
    assert index_bytes(table.to_pylist()) == collect.read_bytes(index_name("c00000"))
    rows = [row | {"caption": ["a", "b"] if row["label"] else None} for row in table.to_pylist()]
    captioned = tmp_path / "captioned.arrow"
    captioned.write_bytes(index_bytes(rows))
    both = read_table([collect.path(index_name("c00000")), captioned])["caption"].to_pylist()
    assert both == [None] * 4 + [["a", "b"], None, ["a", "b"], ["a", "b"]]
    empty = tmp_path / "empty.arrow"
    empty.write_bytes(index_bytes([]))
    source = FolderSource(tmp_path / "in")
    recipe = DecodeRecipe.model_validate(DECODE)
    assert len(ImageIndex(read_table([empty]), Pixels(source, recipe, 1, 0), None)) == 0


def test_class_ids() -> None:
    ids = class_ids(["b", None, "a"], ["a", "b"])
    assert ids is not None
    assert ids.tolist() == [1, -1, 0]
    assert ids.dtype == np.int64
    assert class_ids([None], None) is None
