"""collection.lock: append-only, diffable, checked to the byte; and the snapshot that writes it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.collection.lock import Entry, MetadataFile, chunk_digest, read_lock, write_lock
from components.collection.snapshot import take_snapshot, verify_source
from components.collection.source import FolderSource, open_source
from components.errors import ConfigError, DataError, TamperedError

KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
ENTRIES = st.builds(Entry, KEYS, st.integers(0, 2**40), st.sampled_from(["0123456789abcdef", "etag:x-1", "f" * 16]))
CHUNKS = st.lists(st.lists(ENTRIES, min_size=1, max_size=6), max_size=5)


def _folder(root: Path, contents: dict[str, bytes]) -> FolderSource:
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return FolderSource(root)


def _pictures(n: int, start: int = 0) -> dict[str, bytes]:
    return {f"{i:03d}.png": f"picture {i}".encode() for i in range(start, start + n)}


@given(chunks=CHUNKS)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, chunks: list[list[Entry]]) -> None:
    path = tmp_path_factory.mktemp("lock") / "collection.lock"
    metadata = [MetadataFile("a b/metadata.csv", 3, "0" * 64)]
    named = [(f"c{i:05d}", entries) for i, entries in enumerate(chunks)]
    assert write_lock(path, metadata, named)
    lock = read_lock(path)
    assert lock.metadata == metadata
    assert [(c.name, lock.entries(c)) for c in lock.chunks] == named
    assert [c.digest for c in lock.chunks] == [chunk_digest(entries) for entries in chunks]
    assert lock.count == sum(map(len, chunks))
    assert not write_lock(path, metadata, named)


def test_line_ends_of_windows_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "collection.lock"
    write_lock(path, [], [("c00000", [Entry("a.png", 5, "0" * 16), Entry("b c.png", 6, "etag:1")])], follows_links=True)
    before = read_lock(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    lock = read_lock(path)
    assert (lock.identity, lock.follows_links) == (before.identity, True)
    assert [e.key for chunk in lock.chunks for e in lock.entries(chunk)] == ["a.png", "b c.png"]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_edit_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("lock") / "collection.lock"
    write_lock(path, [], [("c00000", [Entry("a.png", 5, "0" * 16), Entry("b c.png", 6, "etag:1")])])
    before = path.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    edit = data.draw(st.sampled_from(["drop", "change", "double", "cut"]))
    tail = {
        "drop": before[at + 1 :],
        "change": bytes([before[at] ^ 1]) + before[at + 1 :],
        "double": before[at : at + 1] + before[at:],
        "cut": b"",
    }
    path.write_bytes(before[:at] + tail[edit])
    with pytest.raises(TamperedError, match="digest"):
        read_lock(path)


def test_entries_are_checked_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "collection.lock"
    write_lock(path, [], [("c00000", [Entry("a.png", 5, "0" * 16)])])
    lock = read_lock(path)
    path.write_bytes(path.read_bytes().replace(b"a.png", b"b.png"))
    with pytest.raises(TamperedError):
        lock.entries(lock.chunks[0])


def test_a_pin_that_merely_locates_is_not_identity() -> None:
    content, moved = Entry("a", 1, "0" * 16), Entry("a", 1, "1" * 16)
    old, new = Entry("a", 1, "etag:1"), Entry("a", 1, "etag:2")
    assert chunk_digest([content]) != chunk_digest([moved])
    assert chunk_digest([old]) == chunk_digest([new]) != chunk_digest([content])


def test_an_absent_or_unwritable_lock_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rcg snapshot"):
        read_lock(tmp_path / "collection.lock")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_lock(tmp_path / "absent" / "collection.lock", [], [])


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    lock = tmp_path / "collection.lock"
    source = _folder(tmp_path / "in", _pictures(7) | {"metadata.csv": b"file_name\n"})
    first = take_snapshot(source, lock, rebuild=False, chunk_size=3)
    assert (first.n_images, first.n_new, first.n_chunks, first.changed) == (7, 7, 3, True)
    before = lock.read_bytes()
    second = take_snapshot(source, lock, rebuild=False, chunk_size=3)
    assert (second.n_new, second.changed) == (0, False)
    assert lock.read_bytes() == before
    assert [c.count for c in read_lock(lock).chunks] == [3, 3, 1]


@given(batches=st.lists(st.sets(st.integers(0, 60), min_size=1), min_size=1, max_size=4), size=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_chunks_that_exist_never_change(
    tmp_path_factory: pytest.TempPathFactory, batches: list[set[int]], size: int
) -> None:
    root = tmp_path_factory.mktemp("grow")
    lock_path, seen = root / "collection.lock", {900, 901, 902}
    source = _folder(root / "in", {f"{i}.png": b"first" for i in seen})
    take_snapshot(source, lock_path, rebuild=False, chunk_size=size)
    for batch in batches:
        before = read_lock(lock_path)
        text = lock_path.read_bytes()
        _folder(root / "in", {f"{i}.png": b"%d" % i for i in batch - seen})
        found = take_snapshot(source, lock_path, rebuild=False, chunk_size=size)
        lock = read_lock(lock_path)
        assert lock.chunks[: len(before.chunks)] == before.chunks
        assert found.n_new == len(batch - seen)
        assert found.changed == bool(batch - seen)
        assert lock_path.read_bytes().startswith(text[: text.rindex(b"end ")])  # a diff of added lines only
        seen |= batch
        keys = [e.key for c in lock.chunks for e in lock.entries(c)]
        assert sorted(keys) == sorted(f"{i}.png" for i in seen)
        assert max(c.count for c in lock.chunks) <= size
        assert verify_source(source, lock) == 0


def test_changed_and_vanished_pictures_are_named_and_rebuild_mends(tmp_path: Path) -> None:
    lock = tmp_path / "collection.lock"
    source = _folder(tmp_path / "in", _pictures(9))
    take_snapshot(source, lock, rebuild=False, chunk_size=4)
    before = lock.read_bytes()
    (tmp_path / "in" / "004.png").write_bytes(b"PICTURE 4")  # as long as before
    (tmp_path / "in" / "007.png").unlink()
    with pytest.raises(DataError, match=r"004\.png(?s:.)*007\.png(?s:.)*--rebuild"):
        take_snapshot(source, lock, rebuild=False, chunk_size=4)
    assert lock.read_bytes() == before
    assert take_snapshot(source, lock, rebuild=True, chunk_size=4).n_images == 8
    assert take_snapshot(source, lock, rebuild=False, chunk_size=4).changed is False


def test_labels_may_change_without_a_rebuild(tmp_path: Path) -> None:
    lock = tmp_path / "collection.lock"
    source = _folder(tmp_path / "in", _pictures(3) | {"metadata.csv": b"file_name,label\n"})
    take_snapshot(source, lock, rebuild=False)
    old = read_lock(lock)
    (tmp_path / "in" / "metadata.csv").write_bytes(b"file_name,label\n000.png,cat\n")
    assert take_snapshot(source, lock, rebuild=False).changed
    new = read_lock(lock)
    assert new.identity != old.identity
    assert [c.digest for c in new.chunks] == [c.digest for c in old.chunks]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_pictures_are_refused_and_nothing_is_written(tmp_path: Path, n: int) -> None:
    (tmp_path / "in").mkdir()
    source = _folder(tmp_path / "in", _pictures(n) | {"readme.txt": b""})
    with pytest.raises(DataError, match=rf"{n} pictures; left out: 1 \.txt"):
        take_snapshot(source, tmp_path / "collection.lock", rebuild=False)
    assert not (tmp_path / "collection.lock").exists()


def test_a_tampered_lock_is_refused_but_can_be_rebuilt(tmp_path: Path) -> None:
    lock = tmp_path / "collection.lock"
    source = _folder(tmp_path / "in", _pictures(3))
    lock.write_text("<<<<<<< HEAD\n")
    with pytest.raises(TamperedError, match="--rebuild"):
        take_snapshot(source, lock, rebuild=False)
    assert take_snapshot(source, lock, rebuild=True).changed


def test_a_source_that_lost_or_changed_a_picture_is_told_apart(tmp_path: Path) -> None:
    lock = tmp_path / "collection.lock"
    source = _folder(tmp_path / "in", _pictures(6))
    take_snapshot(source, lock, rebuild=False, chunk_size=2)
    _folder(tmp_path / "in", _pictures(2, start=10))
    assert verify_source(source, read_lock(lock)) == 2
    (tmp_path / "in" / "003.png").write_bytes(b"longer than before")
    with pytest.raises(DataError, match=r"003\.png.*not the same(?s:.)*18 bytes(?s:.)*9 bytes"):
        verify_source(source, read_lock(lock))
    (tmp_path / "in" / "001.png").unlink()
    with pytest.raises(DataError, match=r"001\.png.*missing"):
        verify_source(source, read_lock(lock))


def test_the_demo_has_one_identity(tmp_path: Path) -> None:
    found = take_snapshot(open_source("demo"), tmp_path / "collection.lock", rebuild=False)
    assert found.n_images == 1797
    lock = read_lock(tmp_path / "collection.lock")
    assert lock.identity == "74bea051bb011f0044f602dee20b0d442952893449258fff0a65fb0e735adf73"
