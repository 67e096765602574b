"""Columns of the cache's shards, read row by row: memory-mapped, or in memory where they are small.

n: rows, b: rows of a batch, m: elements of the longest row of a ragged field.
"""

import threading
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.fields import FieldSpec


class Column(Protocol):
    """The values of one field."""

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """A copy, and where there is something; None: everywhere.

        Shapes: (b,) -> (b, *shape) and (b,) bool, or of a ragged field (b, m, *shape) and (b, m) bool.
        """
        ...

    def present(self, rows: np.ndarray) -> np.ndarray:
        """Whether the rows have a value. Shapes: (b,) -> (b,) bool."""
        ...


def open_column(field: FieldSpec, column: pa.ChunkedArray, ram_bytes: int) -> Column:
    """The column of a field. `ram_bytes`: up to this size it is copied into memory."""
    pieces = [piece for piece in column.chunks if len(piece)]
    return RaggedColumn(field, pieces) if field.ragged else FixedColumn(field, pieces, ram_bytes)


class FixedColumn:
    """Rows of one shape, gathered out of memory-mapped pieces, or out of one array in memory when they fit."""

    def __init__(self, field: FieldSpec, pieces: list[pa.Array], ram_bytes: int) -> None:
        self._shape, self._dtype = field.shape, np.dtype(field.dtype)
        self._pieces = [_numbers(field, piece) for piece in pieces]
        self._ends = np.cumsum([len(piece) for piece in self._pieces])
        self._fits = sum(piece.nbytes for piece in self._pieces) <= ram_bytes
        self._present = np.concatenate([_valid(piece) for piece in pieces]) if field.nullable and pieces else None
        self._whole: np.ndarray | None = None
        self._lock = threading.Lock()

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        values = self._values(rows)
        if self._present is None:
            return values, None
        mask = self._present[rows]
        values[~mask] = 0
        return values, mask

    def present(self, rows: np.ndarray) -> np.ndarray:
        return np.ones(len(rows), bool) if self._present is None else self._present[rows]

    def _values(self, rows: np.ndarray) -> np.ndarray:
        if self._fits and self._pieces:
            return self._in_memory().take(rows, axis=0)
        out = np.empty((len(rows), *self._shape), self._dtype)
        which, starts = _places(self._ends, rows)
        for i, (piece, row) in enumerate(zip(which, rows - starts, strict=True)):
            out[i] = self._pieces[piece][row]
        return out

    def _in_memory(self) -> np.ndarray:
        if self._whole is None:
            with self._lock:
                if self._whole is None:
                    self._whole = np.concatenate(self._pieces)
        return self._whole


class RaggedColumn:
    """Rows of any number of elements, gathered out of memory-mapped pieces and padded with zeros.

    Every batch is padded to the longest row of all, so that what is computed of a row does not depend on its neighbors.
    """

    def __init__(self, field: FieldSpec, pieces: list[pa.Array]) -> None:
        self._shape, self._dtype, self.chooses = field.shape, np.dtype(field.dtype), field.choices
        self._elements = [_numbers(field, piece.values) for piece in pieces]
        offsets = [piece.offsets.to_numpy() for piece in pieces]
        lengths = [np.diff(at) * _valid(piece) for at, piece in zip(offsets, pieces, strict=True)]
        self._ends = np.cumsum([len(piece) for piece in pieces])
        self._starts = np.concatenate([at[:-1] for at in offsets]) if pieces else np.zeros(0, np.int32)
        self._lengths = np.concatenate(lengths) if pieces else np.zeros(0, np.int32)
        self.longest = max(1, int(self._lengths.max(initial=0)))

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        out = np.zeros((len(rows), self.longest, *self._shape), self._dtype)
        which, _ = _places(self._ends, rows)
        for i, (piece, start, n) in enumerate(zip(which, self._starts[rows], self._lengths[rows], strict=True)):
            out[i, :n] = self._elements[piece][start : start + n]
        return out, np.arange(self.longest) < self._lengths[rows][:, None]

    def present(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self._lengths[rows] > 0)

    def pick(self, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        """One element of each row, zeros where there is none. `at`: where it lies in the row, in [0, 1).

        Shapes: (b,), (b,) float -> (b, *shape).
        """
        out = np.zeros((len(rows), *self._shape), self._dtype)
        which, _ = _places(self._ends, rows)
        chosen = self._starts[rows] + (at * self._lengths[rows]).astype(np.int64)
        for i in np.flatnonzero(self._lengths[rows]):
            out[i] = self._elements[which[i]][chosen[i]]
        return out


def _places(ends: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The piece that each row is in, and the first row of that piece."""
    which = np.searchsorted(ends, rows, side="right")
    return which, np.concatenate([[0], ends])[which]


def _numbers(field: FieldSpec, values: pa.Array) -> np.ndarray:
    """The numbers of values or elements, without a copy; any under a null. Shapes: -> (n, *shape)."""
    if field.shape:
        n, offset = len(values), values.offset
        values = values.values.slice(offset * field.size, n * field.size)
    numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=True)
    return np.asarray(numbers).reshape(-1, *field.shape)


def _valid(piece: pa.Array) -> np.ndarray:
    return np.asarray(piece.is_valid().to_numpy(zero_copy_only=False))
