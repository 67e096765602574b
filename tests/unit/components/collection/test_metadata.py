"""Labels and captions, in the ImageFolder convention."""

import hashlib
import json
from pathlib import Path

import pytest

from components.collection.lock import MetadataFile
from components.collection.metadata import folder_label, named_classes, read_notes, take
from components.collection.notes import Note, Notes
from components.collection.source import FolderSource
from components.errors import DataError


def _read(root: Path, **files: bytes) -> Notes:
    listed = []
    for name, data in files.items():
        key = name.replace("__", "/").replace("_", ".")
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
        listed.append(MetadataFile(key, len(data), hashlib.sha256(data).hexdigest()))
    return read_notes(FolderSource(root), listed)


def test_csv_with_quotes_byte_order_mark_and_other_columns(tmp_path: Path) -> None:
    text = '\ufefffile_name,width,label,text\r\na.png,3,cat,"a cat, ""sitting""\nthere"\r\nsub/b.png,4,,\r\n'
    notes = _read(tmp_path, metadata_csv=text.encode())
    assert notes == {"a.png": Note("cat", ('a cat, "sitting"\nthere',)), "sub/b.png": Note()}


def test_jsonl_in_a_folder_names_files_relative_to_it(tmp_path: Path) -> None:
    lines = [{"file_name": "a.png", "label": 0, "text": "zero"}, {"file_name": "x/b.png", "label": None}]
    data = "\n\n".join(map(json.dumps, lines)).encode()
    notes = _read(tmp_path, sub__metadata_jsonl=data, metadata_csv=b"file_name,label\nc.png,1\n")
    assert notes == {"sub/a.png": Note("0", ("zero",)), "sub/x/b.png": Note(), "c.png": Note("1")}


def test_several_captions_are_a_list_or_a_row_for_each(tmp_path: Path) -> None:
    csv = "file_name,label,text\na.png,cat,a cat\na.png,cat,an animal\na.png,,a pet\nb.png,,\n"
    lines = [{"file_name": "c.png", "text": ["one", "", 2]}, {"file_name": "c.png", "text": "three"}]
    notes = _read(tmp_path, metadata_csv=csv.encode(), sub__metadata_jsonl="\n".join(map(json.dumps, lines)).encode())
    assert notes == {
        "a.png": Note("cat", ("a cat", "an animal", "a pet")),
        "b.png": Note(),
        "sub/c.png": Note(None, ("one", "2", "three")),
    }


def test_separators_of_windows_and_detours_within_the_collection(tmp_path: Path) -> None:
    notes = _read(tmp_path, sub__metadata_csv=b"file_name,label\nbirds\\1.png,sparrow\n../cats/2.png,cat\n")
    assert notes == {"sub/birds/1.png": Note("sparrow"), "cats/2.png": Note("cat")}


@pytest.mark.parametrize(("row", "file"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_accents_of_macos_are_those_of_others(tmp_path: Path, row: str, file: str) -> None:
    """One letter, or a letter and its accent: nobody sees which."""
    csv = f"file_name,label\n{row}\\1.png,cup\n{row}/2.png,pot\n{file}/2.png,pan\n"
    notes = _read(tmp_path, metadata_csv=csv.encode())
    assert take(notes, f"{file}/1.png") == Note("cup")
    assert take(notes, f"{file}/2.png") == Note("pan"), "the very name comes first"
    assert take(notes, f"{file}\\2.png") == Note("pot")
    assert take(notes, f"{file}/3.png") is None
    assert not notes


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("metadata_csv", b"file_name,label\n..\\1.png,cat\n", "line 2 names a file outside"),
        ("metadata_csv", b"file_name,label\n/etc/1.png,cat\n", "line 2 names a file outside"),
        ("metadata_csv", b"file_name,label\n<<<<<<< HEAD\na.png,cat\n", "conflict of a git merge"),
        ("metadata_csv", b"name,label\na.png,cat\n", "line 2 has no file_name"),
        ("metadata_csv", b"file_name,label\na.png,cat\na.png,dog\n", "line 3 describes a.png again"),
        ("metadata_csv", b"file_name,label,text\na.png,cat,x\na.png,dog,y\n", "line 3 describes a.png again"),
        ("metadata_jsonl", b'{"file_name": "a.png", "text": ["x", {"en": "y"}]}\n', "line 1 has a text that is none"),
        ("metadata_csv", b"file_name\n\xff\xfe.png\n", "not UTF-8"),
        ("metadata_jsonl", b'{"file_name": "a.png"}\n{oops}\n', "line 2 is not valid JSON"),
        ("metadata_jsonl", b"[1]\n", "line 1 is no mapping"),
        ("metadata_jsonl", b'{"file_name": 3}\n', "no file_name"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(tmp_path, **{name: data})


def test_a_file_that_is_not_the_listed_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(b"file_name\n")
    with pytest.raises(DataError, match="changed since the snapshot"):
        read_notes(FolderSource(tmp_path), [MetadataFile("metadata.csv", 10, "0" * 64)])


@pytest.mark.parametrize("ends", [(b"\n", b"\r\n"), (b"\r\n", b"\n")])
def test_other_line_ends_are_told_from_other_labels(tmp_path: Path, ends: tuple[bytes, bytes]) -> None:
    listed, found = (b"file_name,label\na.png,cat\n".replace(b"\n", end) for end in ends)
    (tmp_path / "metadata.csv").write_bytes(found)
    file = MetadataFile("metadata.csv", len(listed), hashlib.sha256(listed).hexdigest())
    with pytest.raises(DataError, match=r"changed since[\s\S]*the same lines with other line ends"):
        read_notes(FolderSource(tmp_path), [file])


def test_folder_labels_and_class_order() -> None:
    assert [folder_label(key) for key in ("a.png", "cats/a.png", "x/dogs/a.png")] == [None, "cats", "dogs"]
    assert named_classes({"10", "9", "0"}) == ["0", "9", "10"]
    assert named_classes({"one"}) is named_classes(set()) is None
    assert named_classes({"dog", "cat", "2"}) == ["2", "cat", "dog"]


def test_a_group_is_said_once_or_the_same_in_all_rows(tmp_path: Path) -> None:
    csv = "file_name,group,text\na.png,apple,an apple\na.png,apple,fruit\na.png,,food\nb.png,,\n"
    assert _read(tmp_path, metadata_csv=csv.encode()) == {
        "a.png": Note(None, ("an apple", "fruit", "food"), "apple"),
        "b.png": Note(),
    }
    with pytest.raises(DataError, match=r"line 3 describes a\.png again(?s:.)*same label and group"):
        _read(tmp_path, metadata_csv=b"file_name,group,text\na.png,apple,an apple\na.png,pear,a pear\n")
