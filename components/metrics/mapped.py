"""Rows of a set in a file that is mapped: memory stays flat in their number, and the kernel may take pages back."""

from pathlib import Path

import numpy as np

from components.errors import ShapeError


class MappedRows:
    """n rows that come in blocks. Shapes: blocks (b_i, d), all of one dtype."""

    def __init__(self, n: int, path: Path) -> None:
        self._n, self._path, self._done = n, path, 0
        self._rows: np.ndarray | None = None

    def add(self, block: np.ndarray) -> None:
        """Raises: ShapeError for more rows than were announced."""
        if self._rows is None:
            self._rows = np.lib.format.open_memmap(self._path, "w+", block.dtype, (self._n, block.shape[1]))
        if self._done + len(block) > self._n:
            raise ShapeError("a set holds more rows than it says", got=self._done + len(block), expected=self._n)
        self._rows[self._done : self._done + len(block)] = block
        self._done += len(block)

    def all(self) -> np.ndarray:
        """(n, d). Raises: ShapeError when rows are missing."""
        if self._rows is None or self._done != self._n:
            raise ShapeError("a set holds fewer rows than it says", got=self._done, expected=self._n)
        return np.asarray(self._rows)
