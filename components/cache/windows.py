"""The order in which a cache is read by window: a pure function of (seed, epoch), computed at any position.

n: train pictures, S: shards, w: window, b: batch_size, L: lanes.

Each epoch permutes the shards and deals the rows of each one, permuted, in w equal shares to the bucket of its own
place and to the w - 1 behind it; the last places deal to the first buckets, as on a ring. A bucket is permuted. So S
buckets hold each row once, and every bucket has rows of w shards. Of the buckets end to end each lane reads a stretch;
a batch holds b / L rows of every lane.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from components.cache.config import Reading
from components.rng import derive_seed

_KEPT_EPOCHS, _KEPT_BUCKETS = 2, 512


class WindowOrder:
    """Which rows stand at the positions of the endless sequence of epochs. `sizes`: rows of each shard, in order."""

    def __init__(self, sizes: np.ndarray, reading: Reading) -> None:
        self._shards = np.flatnonzero(sizes)
        self._sizes = sizes[self._shards]
        self.ends = np.cumsum(sizes)
        """Rows of the shards up to each one."""
        self._firsts = self.ends[self._shards] - self._sizes
        self._lanes, self._window = reading.lanes, min(reading.window, max(1, len(self._shards)))
        self.n = int(sizes.sum())
        self._epoch = lru_cache(_KEPT_EPOCHS)(self._make_epoch)
        self._bucket = lru_cache(_KEPT_BUCKETS)(self._make_bucket)

    def indices(self, seed: int, step: int, batch_size: int, rows: slice) -> np.ndarray:
        """Rows of the batch of a step. Shapes: (stop - start,) int64."""
        return np.concatenate([np.zeros(0, np.int64), *self._parts(seed, step, batch_size, rows)])

    def shards(self, seed: int, steps: Iterable[int], batch_size: int, rows: slice) -> list[int]:
        """Shards that these rows of the batches of some steps, and the rows near them, are in."""
        found = dict[int, None]()
        for step in steps:
            for epoch, places in self._places(step, batch_size, rows):
                order, ends = self._epoch(seed, epoch)
                buckets = np.unique(np.searchsorted(ends, places, side="right"))
                found |= dict.fromkeys(order[buckets[:, None] - np.arange(self._window)].ravel().tolist())
        return [int(shard) for shard in self._shards[list(found)]]

    def _parts(self, seed: int, step: int, batch_size: int, rows: slice) -> Iterator[np.ndarray]:
        for epoch, places in self._places(step, batch_size, rows):
            _, ends = self._epoch(seed, epoch)
            buckets = np.searchsorted(ends, places, side="right")
            inside = places - np.concatenate([[0], ends])[buckets]
            out = np.empty(len(places), np.int64)
            for bucket in np.unique(buckets):
                here = buckets == bucket
                out[here] = self._bucket(seed, epoch, int(bucket))[inside[here]]
            yield out

    def _places(self, step: int, batch_size: int, rows: slice) -> Iterator[tuple[int, np.ndarray]]:
        """(epoch, places in its buckets end to end) of these rows of a batch.

        Row q of a batch is lane l's if cuts[l] <= q < cuts[l + 1]; batches of an epoch are counted from its beginning.
        """
        positions = np.arange(step * batch_size + rows.start, step * batch_size + rows.stop)
        epochs, positions = np.divmod(positions, self.n)
        lanes = min(self._lanes, batch_size)
        cuts = batch_size * np.arange(lanes + 1) // lanes
        whole, rest = divmod(self.n, batch_size)
        each = np.diff(cuts)
        lengths = whole * each + np.clip(rest - cuts[:-1], 0, each)
        starts = np.cumsum(lengths) - lengths
        for epoch in np.unique(epochs):
            batches, q = np.divmod(positions[epochs == epoch], batch_size)
            lane = np.searchsorted(cuts, q, side="right") - 1
            yield int(epoch), starts[lane] + batches * each[lane] + q - cuts[lane]

    def _make_epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards by place, and the ends of the buckets. Shapes: (S,), (S,)."""
        order = _permutation(derive_seed(seed, "shards", epoch), len(self._sizes))
        dealt = self._sizes[order]
        shares = (np.roll(self._cut(dealt, i + 1) - self._cut(dealt, i), i) for i in range(self._window))
        return order, np.cumsum(sum(shares))

    def _make_bucket(self, seed: int, epoch: int, bucket: int) -> np.ndarray:
        """Its rows, in their order."""
        order, _ = self._epoch(seed, epoch)
        rows = []
        for share in range(self._window):
            shard = order[bucket - share]
            size, first = int(self._sizes[shard]), int(self._firsts[shard])
            mixed = _permutation(derive_seed(seed, "shard", epoch, int(shard)), size)
            rows.append(first + mixed[self._cut(size, share) : self._cut(size, share + 1)])
        every: np.ndarray = np.concatenate(rows)
        return every.take(_permutation(derive_seed(seed, "bucket", epoch, bucket), len(every)))

    def _cut(self, size: Any, share: int) -> Any:
        return size * share // self._window


def _permutation(seed: int, n: int) -> np.ndarray:
    permuted: np.ndarray = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    return permuted
