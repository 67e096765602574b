"""What the files beside a picture say of it, by WebDataset's convention: all that share a name up to its first dot.

`.txt` is a caption, `.cls` a label, `.json` holds label, text or caption, and group. It becomes a metadata.jsonl.
"""

import json
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from components.collection.source_base import LeftOut
from components.documents import parse_json
from components.errors import DataError

SIDECAR_SUFFIXES = frozenset({".txt", ".cls", ".json"})
_MOST, _MOST_OF_ALL = 2**20, 2**30
LABELS, TEXTS = ("label", "cls", "class"), ("text", "caption", "captions")


class Sidecars:
    """Contents of the sidecars of one archive, by sample."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._found: dict[str, dict[str, bytes]] = {}
        self._bytes = 0

    def takes(self, size: int) -> bool:
        """Whether one of this size may be about a picture. Raises: DataError when there are too many."""
        if size > _MOST:
            return False
        self._bytes += size
        if self._bytes > _MOST_OF_ALL:
            raise DataError(
                f"{self._archive} holds too much text",
                got=f"more than {_MOST_OF_ALL} bytes of .txt, .json and .cls",
                fix="split it into several archives",
            )
        return True

    def add(self, name: str, data: bytes) -> None:
        """Raises: DataError for a second one of this name."""
        mine = self._found.setdefault(sample_of(name), {})
        suffix = name[len(sample_of(name)) :].lower()
        if suffix in mine:
            raise DataError(f"{self._archive} holds two members of one name", got=name, fix="make the archive anew")
        mine[suffix] = data

    def lines(self, names: pa.Array, left_out: LeftOut) -> bytes:
        """One line of metadata.jsonl for each picture of which something is said, in order."""
        lines, used = [], set()
        for scalar in names if self._found else ():
            name = scalar.as_py()
            sample = sample_of(name)
            row = self._row(sample)
            if row:
                lines.append(line_of(name, row))
                used.add(sample)
        self._found = {sample: found for sample, found in self._found.items() if sample not in used}
        self.leave_out(left_out)
        return b"".join(lines)

    def leave_out(self, left_out: LeftOut) -> None:
        """Count what says nothing of any picture."""
        left_out.kinds.update(
            Counter(
                PurePosixPath(sample + end).suffix.lower() for sample, found in self._found.items() for end in found
            )
        )

    def _row(self, sample: str) -> dict[str, Any]:
        found = self._found.get(sample, {})
        row: dict[str, Any] = {}
        if ".json" in found:
            said = parse_json(found[".json"], f"{self._archive}: {sample}.json", DataError)
            row = row_of(said) if isinstance(said, dict) else {}
        for suffix, field in ((".txt", "text"), (".cls", "label")):
            if suffix in found:
                text = self._text(sample + suffix, found[suffix])
                row |= {field: text} if text else {}
        return row

    def _text(self, name: str, data: bytes) -> str:
        try:
            return data.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{self._archive}: {name} is not UTF-8", got=error) from error


def sample_of(name: str) -> str:
    """The name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def row_of(said: dict[str, Any]) -> dict[str, Any]:
    """label, text and group of a mapping, where they are what these can be."""
    row: dict[str, Any] = {}
    for field, names in (("label", LABELS), ("group", ("group",))):
        values = [said[name] for name in names if name in said]
        if values and isinstance(values[0], str | int) and not isinstance(values[0], bool) and values[0] != "":
            row[field] = str(values[0])
    texts = [said[name] for name in TEXTS if said.get(name)]
    captions = texts[0] if texts and isinstance(texts[0], list) else texts[:1]
    captions = [caption for caption in captions if isinstance(caption, str) and caption]
    if captions:
        row["text"] = captions[0] if len(captions) == 1 else captions
    return row


def line_of(name: str, row: dict[str, Any]) -> bytes:
    """A line of metadata.jsonl; equal rows give equal bytes."""
    return json.dumps({"file_name": name, **dict(sorted(row.items()))}, ensure_ascii=False).encode() + b"\n"
