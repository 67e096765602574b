"""Labels and captions: metadata.csv or metadata.jsonl with file_name, label and text, as Hugging Face's ImageFolder.

A picture may have several captions: a list as `text` in metadata.jsonl, or one row for each, in either file. `group`
names what pictures have in common that must not be in two splits: a concept, a person, a scene.
"""

import codecs
import csv
import hashlib
import io
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from components.collection.lock import Lock, MetadataFile
from components.collection.notes import Note, Notes, NotJoinedError
from components.collection.source_base import Source
from components.documents import holds_conflict, json_lines
from components.errors import DataError


def read_notes(source: Source, files: Sequence[MetadataFile]) -> Notes:
    """What all metadata files say, by key of a picture.

    Raises: DataError naming the file and line, or a file that is not the one in collection.lock.
    """
    try:
        return Notes((key, note) for _, key, note in _all_rows(source, files))
    except NotJoinedError as error:
        where, _, _ = next(islice(_all_rows(source, files), error.row, None))
        fix = "keep one row per picture; further rows add a caption each, with the same label and group or none"
        raise DataError(f"{where} describes {error.key} again", fix=fix) from error


def _all_rows(source: Source, files: Sequence[MetadataFile]) -> Iterator[tuple[str, str, Note]]:
    """(place, key, note) of every row."""
    for file in files:
        folder, data = PurePosixPath(file.key).parent, source.read(file.key)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            got = "the same lines with other line ends" if _differs_in_line_ends(data, file) else None
            fix = "list it again with `rcg snapshot`"
            raise DataError(f"{file.key} has changed since the snapshot", got=got, fix=fix)
        if holds_conflict(data):
            raise DataError(f"{file.key} holds the conflict of a git merge", fix="resolve it, and run `rcg snapshot`")
        for where, row in _rows(file.key, data):
            file_name = row.get("file_name")
            if not isinstance(file_name, str) or not file_name:
                raise DataError(f"{where} has no file_name", got=dict(row), expected="a column named file_name")
            note = Note(_text(row.get("label")), _captions(row.get("text"), where), _text(row.get("group")))
            yield where, _key(folder, file_name, where), note


def astray(source: Source, lock: Lock, shown: int = 3) -> str | None:
    """What metadata says about pictures that are not listed, and which of the same name are; None where there is none.

    Raises: DataError as read_notes does.
    """
    unmatched = read_notes(source, lock.metadata)
    for entry in (entry for chunk in lock.chunks for entry in lock.entries(chunk)):
        take(unmatched, entry.key)
    if not unmatched:
        return None
    first = sorted(unmatched)[:shown]
    meant: dict[str, str] = {}
    for entry in (entry for chunk in lock.chunks for entry in lock.entries(chunk)):
        meant.setdefault(PurePosixPath(_as_posix(entry.key)).name, entry.key)
    names = [
        key + (f" (is it {meant[PurePosixPath(key).name]}?)" if PurePosixPath(key).name in meant else "")
        for key in first
    ]
    more = f" and {len(unmatched) - shown} more" if len(unmatched) > shown else ""
    return f"{len(unmatched)} rows of metadata are about no listed picture: {', '.join(names)}{more}"


def take(notes: Notes, key: str) -> Note | None:
    """Take out what is said of a picture: under its name, or the same with accents as macOS or as others spell them."""
    name = _as_posix(key)
    spellings = (name,) if name.isascii() else (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((note for spelling in spellings if (note := notes.pop(spelling, None)) is not None), None)


def _as_posix(name: str) -> str:
    """The name with the separators of every system but Windows."""
    return name.replace("\\", "/")


def _differs_in_line_ends(data: bytes, file: MetadataFile) -> bool:
    unix = data.replace(b"\r\n", b"\n")
    return file.sha256 in {hashlib.sha256(text).hexdigest() for text in (unix, unix.replace(b"\n", b"\r\n"))}


def _key(folder: PurePosixPath, file_name: str, where: str) -> str:
    """Raises: DataError for a name that leads out of the collection."""
    parts: list[str] = []
    for part in (folder / _as_posix(file_name)).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    if parts[:1] in (["/"], [".."]):
        raise DataError(
            f"{where} names a file outside of the collection", got=file_name, expected="a path relative to its folder"
        )
    return "/".join(parts)


def folder_label(key: str) -> str | None:
    """The name of the folder that a picture lies in; None at the top."""
    return PurePosixPath(key).parent.name or None


def named_classes(labels: set[str]) -> list[str] | None:
    """Class names in the order of their ids, numbers by value, then names; None for fewer than two."""
    if len(labels) < 2:
        return None
    return sorted(
        labels, key=lambda name: (0, int(name), name) if name.isdecimal() and len(name) < 20 else (1, 0, name)
    )


def _rows(name: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8", got=error) from error
    if name.endswith(".csv"):
        text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
        reader = csv.DictReader(text)
        try:
            for row in reader:
                yield f"{name} line {reader.line_num}", row
        except csv.Error as error:
            raise DataError(f"{name} line {reader.line_num} is not CSV", got=error) from error
        return
    yield from json_lines(data.removeprefix(codecs.BOM_UTF8), name, DataError)


def _captions(value: Any, where: str) -> tuple[str, ...]:
    captions = value if isinstance(value, list) else [value]
    if wrong := [caption for caption in captions if isinstance(caption, dict | list)]:
        raise DataError(f"{where} has a text that is none", got=wrong[0], expected="a string, or a list of strings")
    return tuple(caption for caption in map(_text, captions) if caption is not None)


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
