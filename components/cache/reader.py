"""Reading the encode cache: what the generators train on. Memory-mapped; only train rows can reach training."""

import copy
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from components.base import Batch, Reader
from components.cache.columns import Column, RaggedColumn, open_column
from components.cache.shards import open_shard, shard_name
from components.collection.splits import SPLITS
from components.config import Config
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

    @property
    def dim(self) -> int:
        """Dimension of the representations."""
        return find_field(self.fields, "representation").size

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in the order of their ids; None when nothing is labeled."""
        return next((field.names for field in self.fields if field.name == "class"), None) or None


def open_cache(artifact: Reader, *, ram_bytes: int = RAM_BYTES) -> "Cache":
    """The cache of an encode artifact."""
    info = CacheInfo.model_validate(artifact.read_json("cache.json"))
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

    def held_out(self, name: Literal["val", "test"], fields: Sequence[str] | None = None) -> "CacheSplit":
        """Pictures that no training has seen. `fields` as in training()."""
        if name not in ("val", "test"):
            raise ArtifactError("not a held-out split", got=name, expected="val or test")
        return CacheSplit(self._rows, name, fields)


class CacheSplit:
    """The pictures of one split, by position 0 … len - 1."""

    def __init__(self, rows: "_Rows", name: str, fields: Sequence[str] | None) -> None:
        self._rows, self.name = rows, name
        self._images = np.flatnonzero(rows.splits == SPLITS.index(name))
        known = rows.fields
        self._fields = [one for one in known if one.in_batches]
        if fields is not None:
            self._fields = [find_field(known, one) for one in dict.fromkeys(fields)]

    @cached_property
    def labels(self) -> np.ndarray | None:
        """Class ids, -1 for unlabeled; None when nothing is labeled. Shapes: (n,) int64."""
        codes = self._rows.codes.get("class")
        return None if codes is None else codes[self._images]

    def __len__(self) -> int:
        return len(self._images)

    def fetch(self, indices: np.ndarray, rng: Rng) -> Batch:
        """A random view of each picture, and a random choice. Shapes: (b,) with rng.rows = b. Same rng, same batch."""
        if rng.rows != len(indices):
            raise ShapeError("one draw per picture is needed", got=f"{rng.rows} rows", expected=len(indices))
        n_views = self._rows.n_views[self._images[indices]]
        views = (rng.uniform().cpu().numpy() * n_views).astype(np.int64)
        chooses = any(field.choices for field in self._fields)
        return self._batch(indices, views, rng.uniform().cpu().numpy() if chooses else 0.0)

    def rows(self, indices: np.ndarray | Sequence[int], view: int = 0) -> Batch:
        """The same view of each picture; 0 is the plain one. Raises: ShapeError for a view that is not there."""
        indices = np.asarray(indices, np.int64)
        fewest = int(self._rows.n_views[self._images[indices]].min(initial=view + 1))
        if not 0 <= view < fewest:
            raise ShapeError("there is no such view", got=view, expected=f"0 … {fewest - 1} in {self.name}")
        return self._batch(indices, np.full(len(indices), view))

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

    def _batch(self, indices: np.ndarray, views: np.ndarray, at: np.ndarray | float = 0.0) -> Batch:
        """`at`: as in RaggedColumn.pick(), the same choice of all fields; 0 is the first."""
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

    def _codes(self, column: pa.ChunkedArray, names: Sequence[str]) -> np.ndarray:
        """Position among names of each picture's value, -1 for nulls. Shapes: (n pictures,) int64."""
        codes = pc.fill_null(pc.index_in(column, value_set=pa.array(names)), -1).to_numpy()
        return np.asarray(codes, np.int64)[self.starts]
