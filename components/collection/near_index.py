"""Which earlier pictures are near new ones, without looking at each: hashes in sorted runs, found by bands of bits.

Two hashes that differ in at most r bits agree in one of any r + 1 parts of their bits. So each hash is filed under
r + 1 numbers, its bands, and only those that share one are compared: what is found is what comparing all would find.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from components.collection.duplicates import HASH_BITS, near_pairs

_TAIL = 8192
"""Hashes that are compared one by one until they become a run."""
_FAN_IN = 8
"""Runs of one size that become one."""
_MOST_BANDS = 10
"""At 8 bytes each; with more, all hashes are compared."""
_BAND_BITS = 32
_SLICE = 2**16
_AT_ONCE = 2**20
_COMMON, _COMMON_SHARE = 4096, 32
"""A band that more hashes share, in a run and as a share of it, is no help."""


@dataclass
class _Run:
    """Hashes, what is known of each, and for each band its sorted values and whose they are.

    Shapes: words (m, 2) uint64; values (m,) uint8; bands: pairs of (m,) uint32.
    """

    words: np.ndarray
    values: np.ndarray
    bands: list[tuple[np.ndarray, np.ndarray]]


class NearIndex:
    """Hashes as they come: 17 bytes each, and 8 for every band, of which there are max_bits + 1."""

    def __init__(self, max_bits: int) -> None:
        self._max_bits = max_bits
        self._n_bands = max_bits + 1 if max_bits < _MOST_BANDS else 0
        self._runs: list[_Run] = []
        self._tail = _Run(np.empty((0, 2), np.uint64), np.empty(0, np.uint8), [])

    def add(self, words: np.ndarray, values: np.ndarray) -> None:
        """Shapes: (k, 2) uint64, (k,) uint8."""
        tail = self._tail
        self._tail = _Run(np.concatenate([tail.words, words]), np.concatenate([tail.values, values]), [])
        if len(self._tail.words) < _TAIL:
            return
        self._runs.append(self._tail)
        self._tail = _Run(words[:0], values[:0], [])
        while self._are_alike(self._runs[-_FAN_IN:]):
            self._runs[-_FAN_IN:] = [_joined(self._runs[-_FAN_IN:])]
        last = self._runs[-1]
        last.bands = [_filed(last.words, band, self._n_bands) for band in range(self._n_bands)]

    def near(self, words: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every new hash with the value of each earlier one that is near, in any order, some twice.

        Shapes: (k, 2) uint64 -> any number of (j,) positions and (j,) uint8.
        """
        for run in (*self._runs, self._tail):
            common = np.ones(len(words), bool)
            if run.bands:
                common[:] = False
                found = [_find(run, words, band, self._n_bands) for band in range(self._n_bands)]
                for _, low, high in found:
                    common |= high - low > max(_COMMON, len(run.words) // _COMMON_SHARE)
                for order, low, high in found:
                    for i, j in _spread(order, low, np.where(common, low, high)):
                        is_near = np.bitwise_count(words[i] ^ run.words[j]).sum(1) <= self._max_bits
                        yield i[is_near], run.values[j[is_near]]
            (rest,) = np.nonzero(common)
            for i, j in near_pairs(words[rest], run.words, self._max_bits):
                yield rest[i], run.values[j]

    def _are_alike(self, runs: list[_Run]) -> bool:
        sizes = [len(run.words) for run in runs]
        return len(runs) == _FAN_IN and max(sizes) < _FAN_IN * min(sizes)


def _joined(runs: list[_Run]) -> _Run:
    for run in runs:
        run.bands = []  # before there is more
    return _Run(np.concatenate([run.words for run in runs]), np.concatenate([run.values for run in runs]), [])


def _filed(words: np.ndarray, band: int, n_bands: int) -> tuple[np.ndarray, np.ndarray]:
    values = _band(words, band, n_bands)
    order = np.argsort(values, kind="stable").astype(np.uint32)
    return values[order], order


def _find(run: _Run, words: np.ndarray, band: int, n_bands: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(whose the sorted values are, first, one after the last) of those that share the band."""
    values, order = run.bands[band]
    mine = _band(words, band, n_bands)
    return order, np.searchsorted(values, mine, "left"), np.searchsorted(values, mine, "right")


def _band(words: np.ndarray, band: int, n_bands: int) -> np.ndarray:
    """Every n_bands-th bit from one on, 32 at most: neighbors say much the same.

    Shapes: (m, 2) uint64 -> (m,) uint32.
    """
    out = np.empty(len(words), np.uint32)
    for start in range(0, len(words), _SLICE):
        part = np.ascontiguousarray(words[start : start + _SLICE])
        bits = np.unpackbits(part.view(np.uint8).reshape(len(part), HASH_BITS // 8), axis=1)[:, band::n_bands]
        padded = np.zeros((len(part), _BAND_BITS), np.uint8)
        padded[:, : bits.shape[1]] = bits[:, :_BAND_BITS]
        out[start : start + len(part)] = np.packbits(padded, axis=1).view(np.uint32)[:, 0]
    return out


def _spread(order: np.ndarray, low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(i, order[low[i] … high[i] - 1]) of every i, some _AT_ONCE at a time."""
    ends = np.cumsum(high - low)
    start = 0
    while start < len(low):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _AT_ONCE, "right")))
        counts = (high - low)[start:stop]
        i = np.repeat(np.arange(start, stop), counts)
        within = np.arange(len(i)) - np.repeat(ends[start:stop] - counts - done, counts)
        if len(i):
            yield i, order[np.repeat(low[start:stop], counts) + within]
        start = stop
