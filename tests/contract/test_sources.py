"""What every source of pictures keeps, wherever they lie: as files, in archives, in a bucket."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from components.collection.facts import read_pinned
from components.collection.lock import Lock, read_lock
from components.collection.metadata import read_notes
from components.collection.snapshot import take_snapshot, verify_source
from components.collection.source import open_source
from components.collection.source_base import Source, pin_of
from components.errors import DataError, RcgError
from tests.support.archives import pgm, write_folder, write_parquet, write_tar, write_zip
from tests.support.s3_rig import aws_environment, moto_server

pytestmark = pytest.mark.processes

NAMES = ["a/0.pgm", "a/1.pgm", "b/2.pgm", "b/10.pgm", "b/é ü.pgm", "top.pgm", "z.pgm"]
PICTURES = {name: pgm(i, 2 + i) for i, name in enumerate(NAMES)}
LABELS = {name: "xy"[i % 2] for i, name in enumerate(NAMES)}
CSV = ("file_name,label\n" + "".join(f"{name},{label}\n" for name, label in LABELS.items())).encode()


def _folder(root: Path) -> Path:
    return write_folder(root / "pictures", PICTURES | {"metadata.csv": CSV, "notes.doc": b"x", ".hidden.pgm": b"x"})


def _tar(root: Path) -> Path:
    said = {f"{name.removesuffix('.pgm')}.cls": label.encode() for name, label in LABELS.items()}
    return write_tar(root / "pictures.tar", dict(reversed((PICTURES | said | {"notes.doc": b"x"}).items())))


def _zip(root: Path) -> Path:
    return write_zip(root / "pictures.zip", PICTURES | {"metadata.csv": CSV, "notes.doc": b"x"})


def _parquet(root: Path) -> Path:
    labels = {"label": ["xy".index(label) for label in LABELS.values()]}
    return write_parquet(root / "pictures.parquet", list(PICTURES.items()), labels, classes="xy")


def _shards(root: Path) -> Path:
    """One archive for each folder, and labels beside them."""
    (root / "shards").mkdir()
    for folder, write in (("a", write_tar), ("b", write_zip)):
        inside = {n.removeprefix(f"{folder}/"): d for n, d in PICTURES.items() if n.startswith(f"{folder}/")}
        write(root / "shards" / f"{folder}.{write.__name__.removeprefix('write_')}", inside)
    (root / "shards" / "metadata.csv").write_bytes(CSV)
    return root / "shards"


MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": _folder,
    "tar": _tar,
    "zip": _zip,
    "parquet": _parquet,
    "shards": _shards,
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Address of each kind of source, here and in a bucket."""
    root, found = tmp_path_factory.mktemp("sources"), dict[str, str]()
    with moto_server("pictures") as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in aws_environment(endpoint).items():
            patch.setenv(name, value)
        client: Any = boto3.session.Session().client("s3")
        for kind, make in MAKERS.items():
            made = make(root)
            found[f"{kind} here"], found[f"{kind} bucket"] = str(made), f"s3://pictures/all/{made.name}"
            for file in [made] if made.is_file() else [path for path in made.rglob("*") if path.is_file()]:
                client.put_object(Bucket="pictures", Key=f"all/{file.relative_to(root)}", Body=file.read_bytes())
        yield found


@pytest.fixture(params=[f"{kind} {place}" for kind in MAKERS for place in ("here", "bucket")])
def source(request: pytest.FixtureRequest, places: dict[str, str]) -> Source:
    return open_source(places[request.param])


def _expected(source: Source) -> list[str]:
    return sorted(name for name in NAMES if "shards" not in source.uri or "/" in name)


def _listed(source: Source) -> list[str]:
    return [item.key for item in source.list() if not item.is_metadata]


def test_it_lists_in_key_order_what_it_can_read(source: Source) -> None:
    items = list(source.list())
    assert [item.key for item in items] == sorted(item.key for item in items)
    assert [item.key for item in items if not item.is_metadata] == _expected(source)
    for item in items:
        data = source.read(item.key, item.pin)
        assert (len(data), pin_of(data)) == (item.size, source.content_pin(item.key))
        assert item.is_metadata or data == PICTURES[item.key]
    assert list(source.list()) == items
    assert str(source.left_out) in {"nothing", "1 .doc"}


def test_it_reads_in_any_order_and_again(source: Source) -> None:
    keys = _listed(source)
    for key in [*reversed(keys), *keys[::2], keys[0], keys[0]]:
        assert source.read(key) == PICTURES[key]
        assert source.content_pin(key) == pin_of(PICTURES[key])


def test_a_fresh_one_reads_without_a_listing(source: Source) -> None:
    assert open_source(source.uri).read("b/10.pgm") == PICTURES["b/10.pgm"]


def test_what_is_not_there_is_named(source: Source) -> None:
    for key in ["b/11.pgm", "c/0.pgm", "0", "zz/z.pgm", "../a/0.pgm", "/etc/hostname"]:
        with pytest.raises(RcgError, match=key.replace("..", "")):
            source.read(key)
    with pytest.raises(DataError, match=r"b/11\.pgm"):
        source.content_pin("b/11.pgm")


def test_it_becomes_a_list_that_reads_back(source: Source, tmp_path: Path) -> None:
    lock = _snapshot(source, tmp_path / "collection.lock")
    assert verify_source(source, lock) == 0
    for entry in (entry for chunk in lock.chunks for entry in lock.entries(chunk)):
        assert read_pinned(source, entry) == PICTURES[entry.key]
    assert not take_snapshot(source, tmp_path / "collection.lock", rebuild=False).changed


def test_labels_reach_the_pictures(source: Source, tmp_path: Path) -> None:
    lock = _snapshot(source, tmp_path / "collection.lock")
    notes = read_notes(source, lock.metadata)
    assert {key: notes[key].label for key in _expected(source)} == {key: LABELS[key] for key in _expected(source)}


def test_the_same_pictures_are_the_same_chunks_wherever_they_lie(places: dict[str, str], tmp_path: Path) -> None:
    locks = [_snapshot(open_source(places[f"{kind} here"]), tmp_path / kind) for kind in MAKERS if kind != "shards"]
    assert len({tuple(chunk.digest for chunk in lock.chunks) for lock in locks}) == 1
    assert locks[0].identity == locks[2].identity  # with the same metadata.csv, the very same collection


def _snapshot(source: Source, path: Path) -> Lock:
    take_snapshot(source, path, rebuild=False)
    return read_lock(path)
