"""Near-duplicates: a 128-bit difference hash per picture, and all pairs that differ in few bits."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

HASH_BITS = 128
_MARGIN = 2  # gray levels; below it a difference is compression noise
_ROWS, _COLUMNS = 256, 1024  # of one comparison block: 2 MB, so that it stays in the cache


def difference_hash(image: Image.Image) -> bytes:
    """16 bytes: is each of 8 x 8 cells brighter than its left, and than its upper neighbor? Integers only, so exact.

    A picture without structure hashes to zeros.
    """
    gray = np.asarray(image.convert("L").resize((9, 9), Image.Resampling.BILINEAR, reducing_gap=3.0)).astype(np.int16)
    right = gray[:8, 1:] - gray[:8, :-1] > _MARGIN
    down = gray[1:, :8] - gray[:-1, :8] > _MARGIN
    return np.packbits(np.stack([right, down])).tobytes()


def as_words(hashes: list[bytes]) -> np.ndarray:
    """Shapes: n hashes -> (n, 2) uint64."""
    return np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2)


def near_pairs(a: np.ndarray, b: np.ndarray, max_bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every (i, j) for which a[i] and b[j] differ in at most max_bits bits, block by block.

    Shapes: (n, 2), (m, 2) uint64 -> any number of index pairs (k,), (k,).
    """
    for top in range(0, len(a), _ROWS):
        for left in range(0, len(b), _COLUMNS):
            rows, columns = a[top : top + _ROWS], b[left : left + _COLUMNS]
            i, j = np.nonzero(np.bitwise_count(rows[:, None, 0] ^ columns[None, :, 0]) <= max_bits)
            near = np.bitwise_count(rows[i] ^ columns[j]).sum(1) <= max_bits
            yield top + i[near], left + j[near]


def largest_family(words: np.ndarray, max_bits: int) -> int:
    """Hashes in the largest set of which each is near another, or near one that is. Shapes: (n, 2) uint64."""
    family = np.arange(len(words))
    for rows, columns in near_pairs(words, words, max_bits):
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
            if family[i] != family[j]:
                family[family == family[j]] = family[i]
    return int(np.bincount(family).max()) if len(family) else 0
