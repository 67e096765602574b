"""A collected collection: which pictures there are, their labels and splits, and their pixels on demand."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from components.arrow_files import check_schema, read_arrow
from components.base import Reader
from components.collection.source import open_source
from components.collection.source_base import Source
from components.errors import DataError
from components.images.config import DecodeRecipe
from components.images.decode import decode, square

T = TypeVar("T")

CACHE_BYTES = 512 * 2**20
_VARIES = frozenset(("caption",))
"""Columns whose type differs from file to file."""


def index_name(chunk: str) -> str:
    """The file of a collect artifact that lists a chunk's pictures."""
    return f"index/{chunk}.arrow"


def index_schema(*, captions: bool = False) -> pa.Schema:
    """`captions`: whether a picture of the chunk has any. A chunk without them keeps the bytes of earlier versions."""
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("hash", pa.binary(16), nullable=False),
            pa.field("constant", pa.bool_(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field("label", pa.string()),
            pa.field("caption", pa.list_(pa.string()) if captions else pa.string()),
        ]
    )


def open_images(
    artifact: Reader, source: str, *, base_only: bool, threads: int = 1, cache_bytes: int = CACHE_BYTES
) -> "ImageIndex":
    """The pictures of a collect artifact; base_only: those that encoder and codec are fitted on.

    `source` is inputs.source. Decoded pixels are kept up to cache_bytes. Raises: DataError.
    """
    listing = artifact.read_json("base.json" if base_only else "collection.json")
    chunks = [chunk["name"] for chunk in listing["chunks"]]
    pixels = open_pixels(listing, source, threads, cache_bytes)
    return ImageIndex(read_table([artifact.path(index_name(name)) for name in chunks]), pixels, listing["classes"])


def open_pixels(listing: Mapping[str, Any], source: str, threads: int, cache_bytes: int) -> "Pixels":
    """What reads the pictures that collection.json or base.json lists."""
    opened = open_source(source, follows_links=listing.get("follows_links", False))
    return Pixels(opened, DecodeRecipe.model_validate(listing["decode"]), threads, cache_bytes)


def index_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """An index file of these pictures; equal rows give equal bytes."""
    schema = index_schema(captions=any(row["caption"] for row in rows))
    sink = pa.BufferOutputStream()
    columns = [pa.array([row[f.name] for row in rows], f.type) for f in schema]
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return bytes(sink.getvalue())


def read_table(paths: Sequence[Path]) -> pa.Table:
    """Arrow files of one schema as one memory-mapped table; captions are lists, also where no picture has any.

    Raises: ArtifactError for one that is damaged.
    """
    tables = [read_arrow(path, path.name) for path in paths]
    wanted = pa.field("caption", pa.list_(pa.string()))
    for n, table in enumerate(tables):
        i = table.schema.get_field_index("caption")
        if i >= 0 and table.schema.field(i).type != wanted.type:
            tables[n] = table.set_column(i, wanted, pa.nulls(len(table), wanted.type))
    return pa.concat_tables(tables) if tables else index_schema().empty_table()


def read_index(file: Path | bytes, name: str) -> pa.Table:
    """One index file. Raises: ArtifactError for what is none."""
    table = read_arrow(file, name)
    check_schema(table, index_schema(), name, but=_VARIES)
    return table


class Pixels:
    """Reads, checks and decodes pictures, in threads; remembers the squares it made while there is room."""

    def __init__(self, source: Source, recipe: DecodeRecipe, threads: int, cache_bytes: int) -> None:
        self._source, self._recipe, self._cache_bytes = source, recipe, cache_bytes
        at_once = max(threads, source.reads_at_once)
        self._pool = ThreadPoolExecutor(at_once) if at_once > 1 else None
        self._cache: dict[int, dict[str, np.ndarray]] = {}

    def decode(self, key: str, sha256: str) -> Image.Image:
        """Upright RGB. Raises: DataError when the file is not the one that was collected."""
        data = self._source.read(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            fix = "restore the file, or list the pictures again with `rcg snapshot --rebuild`"
            raise DataError(f"{key} has changed since it was collected", got=f"{len(data)} bytes", fix=fix)
        return decode(data, self._recipe)

    def each(self, make: Callable[[int, Image.Image], T], keys: Iterable[str], sha256s: Iterable[str]) -> Iterator[T]:
        """make(position, picture) of every picture, in order, in threads."""
        run = self._pool.map if self._pool else map
        return run(lambda i, key, sha256: make(i, self.decode(key, sha256)), count(), keys, sha256s)

    def squares(self, keys: Sequence[str], sha256s: Sequence[str], px: int) -> np.ndarray:
        """Shorter side resized to px, center crop. Shapes: (b, px, px, 3) uint8."""
        known = self._cache.setdefault(px, {})
        out = np.empty((len(keys), px, px, 3), np.uint8)
        fresh = [i for i, sha256 in enumerate(sha256s) if sha256 not in known]
        made = self.each(lambda _, image: square(image, px), [keys[i] for i in fresh], [sha256s[i] for i in fresh])
        for i, image in zip(fresh, made, strict=True):
            out[i] = image
            if self._cache_bytes >= image.nbytes:
                self._cache_bytes -= image.nbytes
                known[sha256s[i]] = image
        for i in set(range(len(keys))).difference(fresh):
            out[i] = known[sha256s[i]]
        return out


class ImageIndex:
    """Pictures in collection order. Rows are addressed by their position in this index.

    Raises: ArtifactError for a table that is none.
    """

    def __init__(self, table: pa.Table, pixels: Pixels, classes: list[str] | None) -> None:
        check_schema(table, index_schema(), "the index", but=_VARIES)
        self._table, self._pixels = table, pixels
        self.classes = classes
        """Class names in the order of their ids; None when nothing is labeled."""

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def split(self, name: str) -> "ImageIndex":
        """Only the pictures of one split: train, val or test."""
        return ImageIndex(self._table.filter(pc.equal(self._table["split"], name)), self._pixels, self.classes)

    def load(self, indices: Sequence[int] | np.ndarray, px: int) -> np.ndarray:
        """Shorter side resized to px, center crop. Shapes: (b,) -> (b, px, px, 3) uint8. Raises: DataError."""
        keys, sha256s = self.keys, self.sha256
        return self._pixels.squares([keys[i] for i in indices], [sha256s[i] for i in indices], px)

    def each(self, indices: Sequence[int] | np.ndarray, make: Callable[[int, Image.Image], T]) -> list[T]:
        """make(position in indices, picture) of whole pictures: upright RGB at their own size. Runs in threads.

        Raises: DataError.
        """
        keys, sha256s = self.keys, self.sha256
        return list(self._pixels.each(make, [keys[i] for i in indices], [sha256s[i] for i in indices]))

    @cached_property
    def keys(self) -> list[str]:
        return self.column("key")

    @cached_property
    def sha256(self) -> list[str]:
        return self.column("sha256")

    @cached_property
    def labels(self) -> np.ndarray | None:
        """Class ids, -1 for unlabeled pictures; None when nothing is labeled. Shapes: (n,) int64."""
        return class_ids(self.column("label"), self.classes)

    def column(self, name: str) -> list[Any]:
        """One column of the index: key, sha256, size, width, height, hash, constant, split, label or caption.

        A picture's value of `caption` is the list of its captions, or None.
        """
        values: list[Any] = self._table[name].to_pylist()
        return values


def class_ids(labels: Sequence[str | None], classes: Sequence[str] | None) -> np.ndarray | None:
    """Ids of class names, -1 for None; None when there are no classes. Shapes: n names -> (n,) int64."""
    if classes is None:
        return None
    ids = {name: i for i, name in enumerate(classes)}
    return np.array([-1 if label is None else ids[label] for label in labels], np.int64)
