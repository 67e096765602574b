"""Reading the encode cache: what the generators train on. Memory-mapped; only train rows can reach training.

Here all of it; components/cache/parts.py reads one that is too large for that.
"""

import copy
import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from components.base import Batch, Reader
from components.cache.columns import Column, RaggedColumn, open_column
from components.cache.config import USUAL, Reading, ReadingChoice
from components.cache.shards import open_shard, shard_name
from components.collection.splits import SPLITS
from components.config import Config, added
from components.errors import ArtifactError, ShapeError
from components.fields import FieldSpec, find_field, mask_name
from components.rng import Rng
from components.target import TargetSpec, data_fields

RAM_BYTES = 2**30
"""A column up to this size is copied into memory once; a bigger one is read from the mapped files."""
CAPTION = FieldSpec(name="caption", dtype="string", shape=(), ragged=True, nullable=True)
"""What metadata says of a picture."""


def cache_fields(
    dim: int, target: TargetSpec, classes: Sequence[str] | None, more: Sequence[FieldSpec] = ()
) -> tuple[FieldSpec, ...]:
    """The fields that `encode` writes. `dim`: of the representations; `more`: what a text encoder makes of captions."""
    return (*data_fields(dim, target, classes), CAPTION, *more)


class ShardCounts(Config):
    """What a shard holds."""

    pictures: dict[str, dict[str, int]]
    """Split -> the fields that not every picture has, as a list with commas -> pictures that have just these."""
    longest: dict[str, int]
    """Elements of the longest row of each ragged field."""

    def having(self, split: str, fields: Iterable[str]) -> int:
        """Pictures of a split that have these fields, all of which may be missing."""
        wanted = set(fields)
        return sum(n for names, n in self.pictures.get(split, {}).items() if wanted <= set(names.split(",")))


class CacheInfo(Config):
    """cache.json."""

    fields: tuple[FieldSpec, ...]
    """Columns of every shard."""
    target: TargetSpec
    """What the codec makes of an image: the space of the field target."""
    n_views: int
    """Views per train picture; held-out pictures have one."""
    counts: dict[str, int]
    """Pictures per split."""
    chunks: list[str]
    """Chunks in order; each is one shard."""
    shards: tuple[ShardCounts, ...] | None = added()
    """Of a large cache: what each shard holds, so that a worker knows it of those that it never opens."""

    @property
    def dim(self) -> int:
        """Dimension of the representations."""
        return find_field(self.fields, "representation").size

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in the order of their ids; None when nothing is labeled."""
        return next((field.names for field in self.fields if field.name == "class"), None) or None


class CacheArtifact(Reader, Protocol):
    """An encode artifact."""

    def release(self, name: str) -> None:
        """Forget a file: where it was fetched, its place on the disk is free again."""
        ...


def open_cache(artifact: CacheArtifact, reading: ReadingChoice = None, *, ram_bytes: int = RAM_BYTES) -> "Cache":
    """The cache of an encode artifact. `reading`: None lets its size decide."""
    from components.cache.parts import PartedCache

    info = CacheInfo.model_validate(artifact.read_json("cache.json"))
    if reading is None and info.shards is not None:
        reading = USUAL
    if isinstance(reading, Reading):
        return PartedCache(info, artifact, reading)
    return Cache(info, [artifact.path(shard_name(chunk)) for chunk in info.chunks], ram_bytes=ram_bytes)


class Cache:
    """All rows; the way to them leads through a split."""

    def __init__(self, info: CacheInfo, paths: Sequence[Path], *, ram_bytes: int = RAM_BYTES) -> None:
        self.info = info
        self._rows = _Rows(info, paths, ram_bytes)

    @property
    def dim(self) -> int:
        return self.info.dim

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        return self.info.fields

    @property
    def target_spec(self) -> TargetSpec:
        return self.info.target

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.info.classes

    def training(self, fields: Sequence[str] | None = None) -> "CacheSplit":
        """The train pictures. `fields`: what its batches hold, all if None; the RDM has no use for targets.

        Raises: ConfigError for a field that the cache lacks.
        """
        return CacheSplit(self._rows, "train", fields)

    def count(self) -> ShardCounts:
        """Of the shards that are open."""
        return self._rows.count()

    def held_out(self, name: Literal["val", "test"], fields: Sequence[str] | None = None) -> "CacheSplit":
        """Pictures that no training has seen. `fields` as in training()."""
        if name not in ("val", "test"):
            raise ArtifactError("not a held-out split", got=name, expected="val or test")
        return CacheSplit(self._rows, name, fields)


def batch_fields(known: Sequence[FieldSpec], names: Sequence[str] | None) -> list[FieldSpec]:
    """The fields of a batch; all that there can be if names is None. Raises: ConfigError for one that there is not."""
    if names is None:
        return [field for field in known if field.in_batches]
    return [find_field(known, name) for name in dict.fromkeys(names)]


class CacheSplit:
    """The pictures of one split, by position 0 … len - 1."""

    def __init__(self, rows: "_Rows", name: str, fields: Sequence[str] | None) -> None:
        self._rows, self.name = rows, name
        self._images = np.flatnonzero(rows.splits == SPLITS.index(name))
        self._fields = batch_fields(rows.fields, fields)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """Class ids, -1 for unlabeled; None when nothing is labeled. Shapes: (n,) int64."""
        codes = self._rows.codes.get("class")
        return None if codes is None else codes[self._images]

    def __len__(self) -> int:
        return len(self._images)

    @property
    def examples(self) -> Any:
        """What the training loop is to know of them: how many there are, or the order in which to read them."""
        return len(self)

    def fetch(self, indices: np.ndarray, rng: Rng) -> Batch:
        """A random view of each picture, and a random choice. Shapes: (b,) with rng.rows = b. Same rng, same batch."""
        if rng.rows != len(indices):
            raise ShapeError("one draw per picture is needed", got=f"{rng.rows} rows", expected=len(indices))
        views = (rng.uniform().cpu().numpy() * self.n_views(indices)).astype(np.int64)
        chooses = any(field.choices for field in self._fields)
        return self.batch(indices, views, rng.uniform().cpu().numpy() if chooses else 0.0)

    def rows(self, indices: np.ndarray | Sequence[int], view: int = 0) -> Batch:
        """The same view of each picture; 0 is the plain one. Raises: ShapeError for a view that is not there."""
        indices = np.asarray(indices, np.int64)
        fewest = int(self.n_views(indices).min(initial=view + 1))
        if not 0 <= view < fewest:
            raise ShapeError("there is no such view", got=view, expected=f"0 … {fewest - 1} in {self.name}")
        return self.batch(indices, np.full(len(indices), view))

    def field(self, name: str, indices: np.ndarray) -> Tensor:
        """One field of the plain view of each picture, without its mask. Shapes: (n,) -> (n, ...)."""
        values, _ = self._rows.take(name, self._images[indices], 0)
        return torch.from_numpy(values)

    def having(self, fields: Iterable[str]) -> "CacheSplit":
        """The pictures that have these fields."""
        some = copy.copy(self)
        some.__dict__.pop("labels", None)
        for name in fields:
            some._images = some._images[some._rows.present(name, some._images)]
        return some

    def keys(self, indices: np.ndarray | Sequence[int]) -> list[str]:
        """File names in the source."""
        return self._text("key", indices)

    def captions(self, indices: np.ndarray | Sequence[int]) -> list[list[str] | None]:
        """All that metadata says of each picture; None where it says nothing."""
        return self._text("caption", indices)

    def n_views(self, indices: np.ndarray) -> np.ndarray:
        """Views of each picture. Shapes: (b,) -> (b,)."""
        n_views: np.ndarray = self._rows.n_views[self._images[indices]]
        return n_views

    def batch(self, indices: np.ndarray, views: np.ndarray, at: np.ndarray | float = 0.0) -> Batch:
        """A view of each picture. `at`: as in RaggedColumn.pick(), the same choice of all fields; 0 is the first."""
        batch: dict[str, Tensor] = {}
        for field in self._fields:
            values, mask = self._rows.take(field.name, self._images[indices], views, at)
            batch[field.name] = torch.from_numpy(values)
            if mask is not None:
                batch[mask_name(field.name)] = torch.from_numpy(mask)
        return batch

    def _text(self, column: str, indices: np.ndarray | Sequence[int]) -> list[Any]:
        rows = self._rows.starts[self._images[np.asarray(indices, np.int64)]]
        values: list[Any] = self._rows.texts[column].take(rows).to_pylist()
        return values


class _Rows:
    """The shards as one table: small columns in memory, big ones behind a Column."""

    def __init__(self, info: CacheInfo, paths: Sequence[Path], ram_bytes: int) -> None:
        table = pa.concat_tables([open_shard(path, info.fields) for path in paths])
        self.fields = info.fields
        self.starts = np.flatnonzero(table["view"].to_numpy() == 0)
        self.n_views = np.diff(self.starts, append=table.num_rows)
        self.splits = self._codes(table["split"], SPLITS)
        self.texts = {name: table[name] for name in ("key", *(f.name for f in info.fields if f.dtype == "string"))}
        self.codes = {f.name: self._codes(table[f.name], f.names) for f in info.fields if f.names}
        """Of each picture, -1 for none. Shapes: (n pictures,) int64."""
        self._columns: dict[str, Column] = {
            f.name: open_column(f, table[f.name], ram_bytes) for f in info.fields if not f.is_text
        }

    def take(
        self, name: str, images: np.ndarray, views: np.ndarray | int, at: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """A field of views of pictures, and where it has something; None: everywhere, or as the values say."""
        if name in self.codes:
            return self.codes[name][images], None
        column, first = self._columns[name], self.starts[images]
        if not isinstance(column, RaggedColumn) or not column.chooses:
            return column.take(first + views)
        values = column.pick(first, np.broadcast_to(at, first.shape))
        # elements that are sequences are padded with zeros
        return values, np.asarray(values.any(2)) if values.ndim == 3 else column.present(first)

    def present(self, name: str, images: np.ndarray) -> np.ndarray:
        """Whether the plain views have this field. Shapes: (b,) -> (b,) bool."""
        if name in self.codes:
            return np.asarray(self.codes[name][images] >= 0)
        return self._columns[find_field(self.fields, name).name].present(self.starts[images])

    def count(self) -> ShardCounts:
        """Pictures by split and by what they have."""
        images = np.arange(len(self.starts))
        some = [f.name for f in self.fields if f.in_batches and (f.nullable or f.ragged or f.names)]
        has = np.stack([np.zeros(len(images), bool), *(self.present(name, images) for name in some)], 1)
        pictures: dict[str, dict[str, int]] = {}
        for code, split in enumerate(SPLITS):
            kinds, numbers = np.unique(has[self.splits == code], axis=0, return_counts=True)
            named = (",".join(itertools.compress(some, kind[1:])) for kind in kinds)
            pictures[split] = dict(zip(named, numbers.tolist(), strict=True))
        columns = self._columns.items()
        return ShardCounts(
            pictures=pictures,
            longest={name: column.longest for name, column in columns if isinstance(column, RaggedColumn)},
        )

    def _codes(self, column: pa.ChunkedArray, names: Sequence[str]) -> np.ndarray:
        """Position among names of each picture's value, -1 for nulls. Shapes: (n pictures,) int64."""
        codes = pc.fill_null(pc.index_in(column, value_set=pa.array(names)), -1).to_numpy()
        return np.asarray(codes, np.int64)[self.starts]
