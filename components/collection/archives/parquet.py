"""Parquet files of Hugging Face: a column of pictures (bytes and path), beside columns of labels and captions.

A picture is called by its path where every row has one that a folder could have and no two are equal, and else by the
number of its row.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.collection.archives.blob import Blob
from components.collection.archives.directory import Directory, Intake, Place
from components.collection.archives.parquet_columns import Columns, find_columns
from components.collection.archives.parquet_pages import PageStream
from components.collection.archives.sidecars import line_of
from components.collection.source_base import PICTURE_SUFFIXES, LeftOut
from components.errors import DataError

_ROWS = 8
"""Pictures unpacked at a time: pages may repeat one large picture any number of times."""
_KEPT_BYTES = 32 * 2**20
_FEW_ROWS = 100_000
"""More are believed of a file that has as many bytes."""
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)
"""What Arrow raises on damaged bytes; a text that is not UTF-8, or a time that Python does not know, among them."""
_NAME = r"^[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*(/[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*)*$"
_SUFFIX = rf"(?i)[.]({'|'.join(sorted(suffix[1:] for suffix in PICTURE_SUFFIXES))})$"
_MAGIC = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"P1", ".pbm"),
    (b"P4", ".pbm"),
    (b"P2", ".pgm"),
    (b"P5", ".pgm"),
    (b"P3", ".ppm"),
    (b"P6", ".ppm"),
)


class ParquetArchive:
    """One Parquet file. Reading on is cheap; going back unpacks the row group from its start."""

    def __init__(self, blob: Blob) -> None:
        self._blob, self._lock = blob, threading.RLock()
        self.held_bytes = _KEPT_BYTES + 2 * blob.shelf.window_bytes
        self._opened: tuple[Any, Columns, np.ndarray] | None = None
        self._blocks: OrderedDict[tuple[int, int], pa.Array] = OrderedDict()
        self._cursor: dict[int, tuple[int, Iterator[pa.RecordBatch]]] = {}  # the row group that is open, and where

    def directory(self, left_out: LeftOut) -> Directory:
        """Names, sizes, and what other columns say. Raises: DataError naming the column or the row group."""
        with self._lock:
            try:
                return self._directory(left_out)
            except _UNREADABLE as error:
                raise self._damaged("in what it says of its pictures", error) from error

    def _directory(self, left_out: LeftOut) -> Directory:
        intake, lines, row = Intake(self._blob.name, left_out), list[tuple[str, bytes]](), 0
        file, columns, _ = self._open()
        is_named = self._is_named(columns)
        paths = [columns.path] if columns.path and is_named else []
        for batch in self._batches(range(file.metadata.num_row_groups), [columns.data, *paths, *columns.said]):
            data, said = columns.child(batch, "bytes"), columns.rows_said(batch)
            names = columns.child(batch, "path").to_pylist() if is_named else _numbered(data, row)
            sizes = pc.binary_length(data).to_pylist()
            for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
                if size is None:
                    left_out.kinds["rows without a picture"] += 1
                elif intake.takes(name, size) == "picture":
                    intake.add(name, Place(row + i, size, size))
                    lines += [(name, line_of(name, said[i]))] if said[i] else []
            row += len(batch)
        return intake.finish(b"".join(line for _, line in sorted(lines)))

    def read(self, name: str, place: Place) -> bytes:
        """Raises: DataError when the row is not there any more."""
        with self._lock:
            _, _, starts = self._open()
            group = int(np.searchsorted(starts, place.offset, side="right")) - 1
            block, at = divmod(place.offset - int(starts[group]), _ROWS)
            values = self._block(group, block)
            data: bytes | None = values[at].as_py() if values is not None and at < len(values) else None
        if data is None:
            raise DataError(f"{self._blob.name} has changed: {name} is gone", fix="run `rcg snapshot` again")
        return data

    def pieces(self, name: str, place: Place) -> Iterator[bytes]:
        """The bytes, as one piece."""
        yield self.read(name, place)

    def _block(self, group: int, block: int) -> pa.Array | None:
        """Pictures block * _ROWS … of a row group; None beyond its end."""
        if (group, block) in self._blocks:
            self._blocks.move_to_end((group, block))
            return self._blocks[group, block]
        columns = self._open()[1]
        start, batches = self._cursor.get(group, (block + 1, iter(())))
        if start > block:
            start, batches = 0, self._batches([group], [columns.data])
        for at, batch in enumerate(batches, start):
            self._cursor = {group: (at + 1, batches)}
            self._blocks[group, at] = columns.child(batch, "bytes")
            while len(self._blocks) > 1 and sum(kept.nbytes for kept in self._blocks.values()) > _KEPT_BYTES:
                self._blocks.popitem(last=False)
            if at == block:
                return self._blocks[group, block]
        return None

    def _open(self) -> tuple[Any, Columns, np.ndarray]:
        """The file, its columns, and the first row of each row group."""
        if self._opened is None:
            import pyarrow.parquet as pq

            try:
                stream = PageStream(self._blob)
                file = pq.ParquetFile(stream, buffer_size=self._blob.shelf.window_bytes, pre_buffer=False)
                stream.watch()
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
                schema = file.schema_arrow
            except _UNREADABLE as error:
                raise self._damaged("", error) from error
            if sum(sizes) > max(_FEW_ROWS, self._blob.size):
                raise self._damaged("", f"{sum(sizes)} rows in {self._blob.size} bytes")
            self._opened = file, find_columns(self._blob.name, schema), np.cumsum([0, *sizes])[:-1]
        return self._opened

    def _batches(self, groups: Iterable[int], columns: list[str], n: int = _ROWS) -> Iterator[pa.RecordBatch]:
        file = self._open()[0]
        for group in groups:
            try:
                yield from file.iter_batches(n, row_groups=[group], columns=columns, use_threads=False)
            except _UNREADABLE as error:
                raise self._damaged(f"in row group {group}", error) from error

    def _is_named(self, columns: Columns) -> bool:
        """Has every row a path that may be a key, and are all different?"""
        if columns.path is None:
            return False
        groups = range(self._open()[0].metadata.num_row_groups)
        parts = [columns.child(batch, "path") for batch in self._batches(groups, [columns.path], 1024)]
        paths = pa.chunked_array(parts, parts[0].type if parts else pa.string())
        is_name = pc.and_(pc.match_substring_regex(paths, _NAME), pc.match_substring_regex(paths, _SUFFIX))
        return not paths.null_count and pc.all(is_name).as_py() and pc.count_distinct(paths).as_py() == len(paths)

    def _damaged(self, where: str, why: object) -> DataError:
        return DataError(
            f"{self._blob.name} is damaged{' ' + where if where else ''}",
            got=why,
            expected="a Parquet file",
            fix="copy it again, or write it anew",
        )


def _numbered(data: pa.Array, first: int) -> list[str]:
    """Names by row, with the suffix of the picture's format."""
    heads = pc.binary_slice(pc.fill_null(data, b""), 0, 12).to_pylist()
    return [f"{first + i:09d}{_suffix(head)}" for i, head in enumerate(heads)]


def _suffix(head: bytes) -> str:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return ".avif"
    return next((suffix for magic, suffix in _MAGIC if head.startswith(magic)), " of no picture format")
