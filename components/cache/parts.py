"""Reading a cache that is too large for a worker: shards are fetched when their rows come, and given back after.

An epoch goes by window (components/cache/windows.py). Which rows a step sees does not depend on what is held.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from components.base import Batch
from components.cache.config import Reading
from components.cache.reader import Cache, CacheArtifact, CacheInfo, CacheSplit, ShardCounts, batch_fields
from components.cache.shards import shard_name
from components.cache.windows import WindowOrder
from components.errors import ArtifactError
from components.fields import mask_name

AHEAD, STRIDE = 32, 8
"""Steps whose shards are fetched before they come, and how often it is looked which these are."""
_MASK = mask_name("")
SPARE, FETCHERS = 8, 4
"""Shards that are held beside those of a window, for rows out of order; shards that are fetched at once."""


class Held:
    """The shards that are open. `keep` says which are to be; of others the last few stay."""

    def __init__(self, artifact: CacheArtifact, info: CacheInfo) -> None:
        self.most = 0
        """Most shards that were ever held."""
        self._artifact, self._info = artifact, info
        self._wanted, self._open = set[int](), dict[int, Future[Cache]]()
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="shards")

    @cached_property
    def counts(self) -> tuple[ShardCounts, ...]:
        """Of each shard; a cache that does not list them is looked through once."""
        listed = self._info.shards
        return tuple(self[shard].count() for shard in range(len(self._info.chunks))) if listed is None else listed

    def __getitem__(self, shard: int) -> Cache:
        """Raises: TamperedError for a shard whose bytes are others than those that were written."""
        with self._lock:
            opened = self._ask(shard)
            spare = [one for one in self._open if one not in self._wanted and one != shard]
            self._drop(spare[: max(0, len(spare) - SPARE + 1)])
        return opened.result()

    def keep(self, shards: Sequence[int]) -> None:
        """Fetch these in the background, in this order; give back all others."""
        with self._lock:
            self._wanted = set(shards)
            self._drop([one for one in self._open if one not in self._wanted])
            for shard in shards:
                self._ask(shard)

    def _ask(self, shard: int) -> "Future[Cache]":
        if shard not in self._open:
            self._open[shard] = self._pool.submit(self._fetch, shard)
            self.most = max(self.most, len(self._open))
        return self._open[shard]

    def _fetch(self, shard: int) -> Cache:
        return Cache(self._info, [self._artifact.path(self._name(shard))], ram_bytes=0)

    def _drop(self, shards: Iterable[int]) -> None:
        for shard in shards:
            self._open.pop(shard).add_done_callback(partial(self._release, shard))

    def _release(self, shard: int, _: "Future[Cache]") -> None:
        with self._lock:
            if shard not in self._open:  # it may have been asked for again
                self._artifact.release(self._name(shard))

    def _name(self, shard: int) -> str:
        return shard_name(self._info.chunks[shard])


class PartedCache(Cache):
    """A cache of which only some shards are open."""

    def __init__(self, info: CacheInfo, artifact: CacheArtifact, reading: Reading) -> None:
        self.info, self.held, self._reading = info, Held(artifact, info), reading

    def training(self, fields: Sequence[str] | None = None) -> "PartSplit":
        return PartSplit(self.held, self.info, "train", fields, self._reading)

    def held_out(self, name: Literal["val", "test"], fields: Sequence[str] | None = None) -> "PartSplit":
        if name not in ("val", "test"):
            raise ArtifactError("not a held-out split", got=name, expected="val or test")
        return PartSplit(self.held, self.info, name, fields, self._reading)


class PartSplit(CacheSplit):
    """The pictures of one split. Rows in the order of the training come from shards that were fetched meanwhile."""

    def __init__(self, held: Held, info: CacheInfo, name: str, fields: Sequence[str] | None, reading: Reading) -> None:
        self.name, self.held, self._info, self._reading = name, held, info, reading
        self._names, self._fields, self._needs = fields, batch_fields(info.fields, fields), tuple[str, ...]()
        self._splits, self._looked = WeakKeyDictionary[Cache, CacheSplit](), -1

    @cached_property
    def _order(self) -> WindowOrder:
        sizes = [counts.having(self.name, self._needs) for counts in self.held.counts]
        return WindowOrder(np.array(sizes, np.int64), self._reading)

    def __len__(self) -> int:
        return self._order.n

    @property
    def examples(self) -> "PartSplit":
        return self

    def indices(self, seed: int, step: int, batch_size: int, rows: slice) -> np.ndarray:
        """These rows of the batch of a step. Shapes: (stop - start,) int64."""
        return self._order.indices(seed, step, batch_size, rows)

    def expect(self, seed: int, step: int, batch_size: int, rows: slice) -> None:
        """Hold what this step and those behind it read of their batches, and nothing else."""
        if self._looked == step // STRIDE:
            return
        self._looked = step // STRIDE
        soon = range(self._looked * STRIDE, (self._looked + 1) * STRIDE + AHEAD)
        now = self._order.shards(seed, [step], batch_size, rows)
        self.held.keep(list(dict.fromkeys(now + self._order.shards(seed, soon, batch_size, rows))))

    def having(self, fields: Iterable[str]) -> "PartSplit":
        some = PartSplit(self.held, self._info, self.name, self._names, self._reading)
        some._needs = (*self._needs, *fields)
        return some

    @cached_property
    def labels(self) -> np.ndarray | None:
        return None if not self._info.classes else self.field("class", np.arange(len(self))).numpy()

    def n_views(self, indices: np.ndarray) -> np.ndarray:
        out = np.ones(len(indices), np.int64)
        for split, inside, here in self._by_shard(indices):
            out[here] = split.n_views(inside)
        return out

    def batch(self, indices: np.ndarray, views: np.ndarray, at: np.ndarray | float = 0.0) -> Batch:
        at = np.broadcast_to(at, len(indices))
        parts = ((split.batch(inside, views[here], at[here]), here) for split, inside, here in self._by_shard(indices))
        return self._gather(len(indices), parts)

    def field(self, name: str, indices: np.ndarray) -> Tensor:
        parts = (({name: split.field(name, inside)}, here) for split, inside, here in self._by_shard(indices))
        return self._gather(len(indices), parts)[name]

    def _gather(self, n: int, parts: Iterable[tuple[Batch, np.ndarray]]) -> dict[str, Tensor]:
        """Rows of shards where they belong; ragged ones are padded as if all shards were open."""
        out: dict[str, Tensor] = {}
        for part, here in parts:
            for name, rows in part.items():
                longest = self._ragged.get(name.removesuffix(_MASK))
                if name not in out:
                    shape = rows.shape[1:] if longest is None else (longest, *rows.shape[2:])
                    out[name] = torch.zeros((n, *shape), dtype=rows.dtype)
                room = out[name] if longest is None else out[name][:, : rows.shape[1]]
                room[torch.from_numpy(here)] = rows
        return out

    @cached_property
    def _ragged(self) -> dict[str, int]:
        """Elements of the longest row of each ragged field whose batches hold them all."""
        names = [field.name for field in self._info.fields if field.ragged and not (field.is_text or field.choices)]
        return {name: max(counts.longest[name] for counts in self.held.counts) for name in names}

    def _text(self, column: str, indices: np.ndarray | Sequence[int]) -> list[Any]:
        values: list[Any] = [None] * len(indices)
        for split, inside, here in self._by_shard(np.asarray(indices, np.int64)):
            for i, value in zip(here, split._text(column, inside), strict=True):
                values[i] = value
        return values

    def _by_shard(self, indices: np.ndarray) -> Iterator[tuple[CacheSplit, np.ndarray, np.ndarray]]:
        """Of each shard with some of these rows: its split, their positions in it, and which of `indices` they are."""
        ends = self._order.ends
        shards = np.searchsorted(ends, indices, side="right")
        for shard in np.unique(shards) if len(shards) else [0]:
            here = np.flatnonzero(shards == shard)
            yield self._opened(self.held[int(shard)]), indices[here] - (ends[shard - 1] if shard else 0), here

    def _opened(self, cache: Cache) -> CacheSplit:
        if cache not in self._splits:
            self._splits[cache] = CacheSplit(cache._rows, self.name, self._names).having(self._needs)
        return self._splits[cache]
