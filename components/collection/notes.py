"""What metadata says of pictures, as columns: some 50 bytes a row beside its text, and no object for each picture."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa

T = TypeVar("T")

_BATCH = 8192
_SCHEMA = pa.schema(
    {"key": pa.string(), "label": pa.string(), "captions": pa.list_(pa.string()), "group": pa.string()}.items()
)


class Note(NamedTuple):
    """What is said about one picture."""

    label: str | None = None
    captions: tuple[str, ...] = ()
    group: str | None = None

    def joined(self, other: Self) -> Self | None:
        """This note with the captions of another row; None where that row has none, or another label or group."""
        if not other.captions or other.label not in (None, self.label) or other.group not in (None, self.group):
            return None
        return self._replace(captions=self.captions + other.captions)


class NotJoinedError(Exception):
    """A row that cannot be joined with an earlier one of its picture. `row`: its number, from 0."""

    def __init__(self, row: int, key: str) -> None:
        super().__init__(key)
        self.row, self.key = row, key


class Notes(Mapping[str, Note]):
    """Key of a picture -> its note, in the order of the rows. pop() takes one out."""

    def __init__(self, rows: Iterable[tuple[str, Note]]) -> None:
        """Raises: NotJoinedError for the first row that does not fit an earlier one of its picture."""
        self._batches, marks = list[pa.RecordBatch](), list[np.ndarray]()
        rest = iter(rows)
        while some := list(islice(rest, _BATCH)):
            marks.append(np.array([_mark(key) for key, _ in some], np.uint64))
            columns = zip(*((key, note.label, note.captions or None, note.group) for key, note in some), strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
            self._batches.append(pa.record_batch(arrays, schema=_SCHEMA))
        unordered = np.concatenate([np.empty(0, np.uint64), *marks])
        order = np.argsort(unordered, kind="stable")
        self._order, self._marks = order.astype(np.uint32), unordered[order]
        is_again = np.append(False, self._marks[1:] == self._marks[:-1])[: len(order)]
        self._is_there = np.ones(len(order), bool)
        self._is_there[order[is_again]] = False  # the first row of each picture stands for it
        self._check(np.flatnonzero(is_again))

    def __getitem__(self, key: str) -> Note:
        rows = self._rows(key)
        if not len(rows) or not self._is_there[rows[0]]:
            raise KeyError(key)
        _, note = self._row(int(rows[0]))
        for row in rows[1:]:
            note = note._replace(captions=note.captions + self._row(int(row))[1].captions)
        return note

    def __iter__(self) -> Iterator[str]:
        for row in np.flatnonzero(self._is_there).tolist():
            yield self._row(row)[0]

    def __len__(self) -> int:
        return int(self._is_there.sum())

    def pop(self, key: str, default: T) -> Note | T:
        """The note, which is not there afterwards; else the default."""
        note = self.get(key)
        if note is None:
            return default
        self._is_there[self._rows(key)[0]] = False
        return note

    def _check(self, again: np.ndarray) -> None:
        """`again`: places in order of rows about a picture that an earlier row is about."""
        worst: tuple[int, str] | None = None
        first = note = None
        for at in again.tolist():
            key, more = self._row(int(self._order[at]))
            if first is None or self._marks[at] != self._marks[first]:
                first, note = at, self._row(int(self._order[at - 1]))[1]
            note = note.joined(more) if note else None
            if note is None and (worst is None or self._order[at] < worst[0]):
                worst = int(self._order[at]), key
        if worst is not None:
            raise NotJoinedError(*worst)

    def _rows(self, key: str) -> np.ndarray:
        mark = np.uint64(_mark(key))
        low, high = (int(np.searchsorted(self._marks, mark, side)) for side in ("left", "right"))
        return self._order[low:high]

    def _row(self, row: int) -> tuple[str, Note]:
        batch, at = self._batches[row // _BATCH], row % _BATCH
        key, label, captions, group = (column[at].as_py() for column in batch.columns)
        return key, Note(label, tuple(captions or ()), group)


def _mark(key: str) -> int:
    """Two keys with one number are as unlikely as 2^-64."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())
