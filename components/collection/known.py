"""What a lock lists already, in 25 bytes per picture (50 while it is read): enough to compare a listing with it."""

import hashlib
from collections.abc import Iterator
from typing import Literal

import numpy as np

from components.collection.lock import Entry, Lock

Verdict = Literal["new", "same", "changed", "unsure"]
"""unsure: of one entry the content is pinned, of the other only its place; sizes agree."""


class Known:
    """Keys, sizes and pins of a lock's pictures as numbers; two keys with one number are as unlikely as 2^-64."""

    def __init__(self, lock: Lock | None) -> None:
        n = 0 if lock is None else lock.count
        marks = np.fromiter(() if lock is None else _marks(lock), np.dtype((np.uint64, 3)), n)
        order = np.argsort(marks[:, 0])
        self._keys, self._sizes, self._pins = (np.ascontiguousarray(marks[order, i]) for i in range(3))
        self._seen = np.zeros(n, bool)

    def compare(self, entry: Entry) -> Verdict:
        """How a listed picture relates to what was known; remembers that it was seen."""
        at = self._find(entry.key)
        if at is None:
            return "new"
        self._seen[at] = True
        if int(self._sizes[at]) != entry.size:
            return "changed"
        before, now = int(self._pins[at]), _pin_mark(entry)
        if before % 2 != now % 2:
            return "unsure"
        return "same" if before == now else "changed"

    def unseen(self, lock: Lock) -> Iterator[str]:
        """Keys of the lock that were never compared."""
        if self._seen.all():
            return
        for chunk in lock.chunks:
            for entry in lock.entries(chunk):
                at = self._find(entry.key)
                if at is not None and not self._seen[at]:
                    yield entry.key

    def _find(self, key: str) -> int | None:
        mark = np.uint64(_number(key))
        at = int(np.searchsorted(self._keys, mark))
        return at if at < len(self._keys) and self._keys[at] == mark else None


def _marks(lock: Lock) -> Iterator[tuple[int, int, int]]:
    for chunk in lock.chunks:
        for entry in lock.entries(chunk):
            yield _number(entry.key), entry.size, _pin_mark(entry)


def _pin_mark(entry: Entry) -> int:
    """The lowest bit tells a locating pin from one of the content."""
    return _number(entry.etag or entry.pin) & ~1 | (entry.locator is not None)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
