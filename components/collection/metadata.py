"""Labels and captions: metadata.csv or metadata.jsonl with file_name, label and text, as Hugging Face's ImageFolder."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from components.collection.lock import MetadataFile
from components.collection.source_base import Source
from components.errors import DataError


class Note(NamedTuple):
    """What is said about one picture; None where nothing is."""

    label: str | None
    caption: str | None


def read_notes(source: Source, files: Sequence[MetadataFile]) -> dict[str, Note]:
    """Key of a picture -> its note, out of all metadata files.

    Raises: DataError naming the file and line, or a file that is not the one in collection.lock.
    """
    notes: dict[str, Note] = {}
    for file in files:
        folder, data = PurePosixPath(file.key).parent, source.read(file.key)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise DataError(f"{file.key} has changed since the snapshot", fix="list it again with `rcg snapshot`")
        for where, row in _rows(file.key, data):
            file_name = row.get("file_name")
            if not isinstance(file_name, str) or not file_name:
                raise DataError(f"{where} has no file_name", got=dict(row), expected="a column named file_name")
            key = str(folder / file_name)
            if key in notes:
                raise DataError(f"{where} describes {key} again", fix="keep one row per picture")
            notes[key] = Note(_text(row.get("label")), _text(row.get("text")))
    return notes


def folder_label(key: str) -> str | None:
    """The name of the folder that a picture lies in; None at the top."""
    return PurePosixPath(key).parent.name or None


def sorted_classes(labels: set[str]) -> list[str]:
    """Class names in the order of their ids: numbers by value, then names."""
    return sorted(labels, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def _rows(name: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8", got=error) from error
    if name.endswith(".csv"):
        reader = csv.DictReader(text)
        try:
            for row in reader:
                yield f"{name} line {reader.line_num}", row
        except csv.Error as error:
            raise DataError(f"{name} line {reader.line_num} is not CSV", got=error) from error
        return
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{name} line {number} is not JSON", got=error) from error
        if not isinstance(row, dict):
            raise DataError(f"{name} line {number} is not an object", got=line.strip()[:80])
        yield f"{name} line {number}", row


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
