"""Reading the encode cache: what the generators train on. Memory-mapped; only train rows can reach training."""

import copy
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from components.base import Batch, Reader
from components.cache.shards import shard_name
from components.collection.splits import SPLITS
from components.config import Config
from components.errors import ArtifactError, ShapeError
from components.rng import Rng
from components.target import TargetSpec

Column = Literal["target", "representation", "class"]
COLUMNS: tuple[Column, ...] = ("target", "representation", "class")
RAM_BYTES = 2**30
"""A column up to this size is copied into memory once; a bigger one is read from the mapped files."""


class CacheInfo(Config):
    """cache.json."""

    dim: int
    """Dimension of the representations."""
    target: TargetSpec
    """What the codec makes of an image."""
    n_views: int
    """Views per train picture; held-out pictures have one."""
    classes: list[str] | None
    """Class names in the order of their ids; None when nothing is labeled."""
    counts: dict[str, int]
    """Pictures per split."""
    chunks: list[str]
    """Chunks in order; each is one shard."""


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
    def target_spec(self) -> TargetSpec:
        return self.info.target

    @property
    def classes(self) -> list[str] | None:
        return self.info.classes

    def training(self, columns: Sequence[Column] = COLUMNS) -> "CacheSplit":
        """The train pictures. `columns`: what its batches hold; the RDM has no use for targets."""
        return CacheSplit(self._rows, "train", columns)

    def held_out(self, name: Literal["val", "test"], columns: Sequence[Column] = COLUMNS) -> "CacheSplit":
        """Pictures that no training has seen."""
        if name not in ("val", "test"):
            raise ArtifactError("not a held-out split", got=name, expected="val or test")
        return CacheSplit(self._rows, name, columns)


class CacheSplit:
    """The pictures of one split, by position 0 … len - 1."""

    def __init__(self, rows: "_Rows", name: str, columns: Sequence[Column]) -> None:
        self._rows, self.name = rows, name
        self._images = np.flatnonzero(rows.splits == SPLITS.index(name))
        self._starts, self._n_views = rows.starts[self._images], rows.n_views[self._images]
        self.labels = None if rows.labels is None else rows.labels[self._images]
        """Class ids, -1 for unlabeled; None when nothing is labeled. Shapes: (n,) int64."""
        self._columns: Sequence[str] = columns

    def __len__(self) -> int:
        return len(self._images)

    def fetch(self, indices: np.ndarray, rng: Rng) -> Batch:
        """A random view of each picture. Shapes: (b,) with rng.rows = b. Same rng, same views."""
        if rng.rows != len(indices):
            raise ShapeError("one draw per picture is needed", got=f"{rng.rows} rows", expected=len(indices))
        n_views = self._n_views[indices]
        views = (rng.uniform().cpu().numpy() * n_views).astype(np.int64)
        return self._batch(indices, views)

    def rows(self, indices: np.ndarray | Sequence[int], view: int = 0) -> Batch:
        """The same view of each picture; 0 is the plain one. Raises: ShapeError for a view that is not there."""
        indices = np.asarray(indices, np.int64)
        fewest = int(self._n_views[indices].min(initial=view + 1))
        if not 0 <= view < fewest:
            raise ShapeError("there is no such view", got=view, expected=f"0 … {fewest - 1} in {self.name}")
        return self._batch(indices, np.full(len(indices), view))

    def field(self, name: str, indices: np.ndarray) -> Tensor:
        """One field of the plain view of each picture. Shapes: (n,) -> (n, ...)."""
        if name == "class":
            return torch.from_numpy(np.full(len(indices), -1) if self.labels is None else self.labels[indices])
        return torch.from_numpy(self._rows.columns[name].take(self._starts[indices]))

    def having(self, fields: Sequence[str]) -> "CacheSplit":
        """The pictures that have these fields; only a class can be missing."""
        if "class" not in fields:
            return self
        some = copy.copy(self)
        keep = np.zeros(len(self), bool) if self.labels is None else self.labels >= 0
        some._images, some._starts, some._n_views = self._images[keep], self._starts[keep], self._n_views[keep]
        some.labels = None if self.labels is None else self.labels[keep]
        return some

    def keys(self, indices: np.ndarray | Sequence[int]) -> list[str]:
        """File names in the source."""
        return self._text("key", indices)

    def captions(self, indices: np.ndarray | Sequence[int]) -> list[list[str] | None]:
        """What metadata says of each picture; None where it says nothing."""
        return self._text("caption", indices)

    def _batch(self, indices: np.ndarray, views: np.ndarray) -> Batch:
        rows = self._starts[indices] + views
        batch = {
            name: torch.from_numpy(self._rows.columns[name].take(rows)) for name in self._columns if name != "class"
        }
        if "class" in self._columns and self.labels is not None:
            batch["class"] = torch.from_numpy(self.labels[indices])
        return batch

    def _text(self, column: str, indices: np.ndarray | Sequence[int]) -> list[Any]:
        values: list[Any] = self._rows.texts[column].take(self._starts[np.asarray(indices, np.int64)]).to_pylist()
        return values


class _Rows:
    """The shards as one table: small columns in memory, big ones behind _Column."""

    def __init__(self, info: CacheInfo, paths: Sequence[Path], ram_bytes: int) -> None:
        table = pa.concat_tables([pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths])
        self.starts = np.flatnonzero(table["view"].to_numpy() == 0)
        self.n_views = np.diff(self.starts, append=table.num_rows)
        self.splits = self._codes(table["split"], pa.array(SPLITS), pc)
        self.labels = None if info.classes is None else self._codes(table["label"], pa.array(info.classes), pc)
        self.texts = {name: table[name] for name in ("key", "caption")}
        self.columns = {
            "representation": _Column(table["representation"], (info.dim,), ram_bytes),
            "target": _Column(table["target"], info.target.shape, ram_bytes),
        }

    def _codes(self, column: pa.ChunkedArray, names: pa.Array, pc: Any) -> np.ndarray:
        """Position among names of each picture's value, -1 for nulls. Shapes: (n pictures,) int64."""
        codes = pc.fill_null(pc.index_in(column, value_set=names), -1).to_numpy()
        return np.asarray(codes, np.int64)[self.starts]


class _Column:
    """Rows of one shape, gathered out of memory-mapped pieces, or out of one array in memory when they fit."""

    def __init__(self, column: pa.ChunkedArray, shape: tuple[int, ...], ram_bytes: int) -> None:
        self._pieces = [
            piece.flatten().to_numpy(zero_copy_only=True).reshape(-1, *shape) for piece in column.chunks if len(piece)
        ]
        self._ends = np.cumsum([len(piece) for piece in self._pieces])
        self._fits = sum(piece.nbytes for piece in self._pieces) <= ram_bytes
        self._whole: np.ndarray | None = None
        self._lock = threading.Lock()

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Shapes: (b,) -> (b, *shape), a copy."""
        if self._fits:
            return self._in_memory().take(rows, axis=0)
        which = np.searchsorted(self._ends, rows, side="right")
        offsets = np.concatenate([[0], self._ends])
        first = self._pieces[0]
        out = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for i, (piece, row) in enumerate(zip(which, rows - offsets[which], strict=True)):
            out[i] = self._pieces[piece][row]
        return out

    def _in_memory(self) -> np.ndarray:
        if self._whole is None:
            with self._lock:
                if self._whole is None:
                    self._whole = np.concatenate(self._pieces)
        return self._whole
