"""A Parquet file as a stream that looks at the header of each page before Arrow unpacks it.

Arrow makes room for what a header announces, up to 2 GiB for a page of a few KiB. Headers are in Thrift's compact form.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from components.collection.archives.blob import Blob, BlobStream
from components.errors import DataError

_MOST_BYTES = 128 * 2**20
_MOST_DICTIONARY_BYTES = 32 * 2**20
"""A dictionary's values may be repeated in every row."""
_MOST_TIMES = 100
"""A page that unpacks to more bytes than these, and than so many times its own, is refused: pictures are packed."""
_DICTIONARY_PAGE = 2
_TAIL_BYTES = 8
"""The length of the footer and the file's mark."""
_FIRST_BYTES, _MOST_HEADER_BYTES = 2**12, 2**21
_MOST_DEPTH = 32
_INT32, _INT64, _BINARY, _LIST, _MAP, _STRUCT = 5, 6, 8, 9, 11, 12
_ROW_GROUPS, _COLUMNS, _COLUMN, _BYTES, _DATA, _DICTIONARY = 4, 1, 3, 7, 9, 11
"""Numbers of fields: of the footer, a row group, a column of it, and of what is said of that."""
_BOOLS, _INTEGERS, _LISTS = (1, 2), (4, 5, 6), (9, 10)
_FIXED = {1: 0, 2: 0, 3: 1, 7: 8}
"""Bytes of true and false (which are kinds of a field), of a byte and of a double."""


class PageHeader(NamedTuple):
    """`size`: bytes of the header; `packed`: of the page that follows; `unpacked`: what it becomes."""

    kind: int
    unpacked: int
    packed: int
    size: int


class PageStream(BlobStream):
    """For one thread, as BlobStream is. Until watch() it is one."""

    def __init__(self, blob: Blob) -> None:
        super().__init__(blob)
        self._starts, self._next, self._ends = list[int](), list[int](), list[int]()

    def watch(self) -> None:
        """Look at pages from now on: of all that the footer lists. Raises: ValueError for a footer that is none.

        Arrow's own account of columns ends the process where the footer is damaged.
        """
        end = self._blob.size - _TAIL_BYTES
        start = end - int.from_bytes(self._blob.read(end, end + 4), "little")
        if start < 0:
            raise ValueError("a footer larger than the file")
        try:
            chunks = list(_chunks(_Reader(memoryview(self._blob.read(start, end)))))
        except IndexError:
            raise ValueError("a footer without an end") from None
        chunks.sort()
        if any(end > start for (_, end), (start, _) in pairwise(chunks)):
            raise ValueError("columns that overlap")
        self._starts, self._ends = [start for start, _ in chunks], [end for _, end in chunks]
        self._next = list(self._starts)

    def read(self, size: int | None = -1) -> bytes:
        """Raises: DataError for a page that unpacks to far more than it is, ValueError for a header that is none."""
        at = self.tell()
        data = super().read(size)
        i = max(0, bisect_right(self._starts, at) - 1)
        while i < len(self._starts) and self._starts[i] < at + len(data):
            while self._next[i] < min(at + len(data), self._ends[i]):
                self._look(i, memoryview(data)[self._next[i] - at :] if self._next[i] >= at else memoryview(b""))
            i += 1
        return data

    def _look(self, i: int, data: memoryview) -> None:
        header = self._header(self._next[i], data)
        most = _MOST_DICTIONARY_BYTES if header.kind == _DICTIONARY_PAGE else _MOST_BYTES
        if header.unpacked > max(most, _MOST_TIMES * header.packed):
            raise DataError(
                f"{self._blob.name} holds a page that unpacks to far more than it is",
                got=f"{header.packed} bytes at {self._next[i] + header.size} that become {header.unpacked}",
                expected=f"at most {most} bytes, or {_MOST_TIMES} times those of the page",
                fix="write the file anew, with fewer rows in a row group",
            )
        self._next[i] += header.size + header.packed

    def _header(self, at: int, data: memoryview) -> PageHeader:
        n = _FIRST_BYTES
        while True:
            try:
                return read_header(data)
            except IndexError:  # it goes on
                if n > _MOST_HEADER_BYTES or at + len(data) >= self._blob.size:
                    raise ValueError(f"a header without an end at byte {at}") from None
            except ValueError as error:
                raise ValueError(f"{error} at byte {at}") from error
            data, n = memoryview(self._blob.read(at, at + n)), 8 * n


def read_header(data: memoryview) -> PageHeader:
    """The header at the start. Raises: IndexError where the data end too early, ValueError for what is none."""
    reader, found = _Reader(data), {1: -1, 2: -1, 3: -1}
    for field, kind in reader.fields():
        if field in found and kind == _INT32:
            found[field] = reader.int32()
        else:
            reader.skip(kind)
    if found[2] < 0 or found[3] < 0:
        raise ValueError("no sizes of a page")
    return PageHeader(found[1], found[2], found[3], reader.at)


def _chunks(reader: "_Reader") -> Iterator[tuple[int, int]]:
    """(start, end) of each column in each row group of a footer."""
    for _ in reader.inside(_ROW_GROUPS, _LIST):
        for _ in reader.items():
            for _ in reader.inside(_COLUMNS, _LIST):
                for _ in reader.items():
                    for _ in reader.inside(_COLUMN, _STRUCT):
                        found = dict.fromkeys((_BYTES, _DATA, _DICTIONARY), 0)
                        for field, kind in reader.fields():
                            if field in found and kind == _INT64:
                                found[field] = reader.int64()
                            else:
                                reader.skip(kind)
                        start = found[_DATA]
                        if 0 < found[_DICTIONARY] < start:  # as Arrow finds it
                            start = found[_DICTIONARY]
                        if found[_BYTES] > 0:
                            yield start, start + found[_BYTES]


class _Reader:
    """Thrift's compact protocol, as much as is needed to skip what is not needed."""

    def __init__(self, data: memoryview) -> None:
        self._data, self.at = data, 0

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number without an end")

    def int32(self) -> int:
        """As C++ reads it: of more bits the lowest."""
        value = self._varint() & 0xFFFFFFFF
        return (value >> 1) ^ -(value & 1)

    def int64(self) -> int:
        value = self._varint() & (2**64 - 1)
        return (value >> 1) ^ -(value & 1)

    def inside(self, wanted: int, wanted_kind: int) -> Iterator[None]:
        """At the value of this field of a structure; past all others."""
        for field, kind in self.fields():
            if (field, kind) == (wanted, wanted_kind):
                yield
            else:
                self.skip(kind)

    def items(self) -> Iterator[None]:
        """At each structure of a list."""
        head = self._byte()
        n = head >> 4 if head >> 4 < 15 else self._varint()
        if n and head & 0x0F != _STRUCT:
            raise ValueError("a list of something else")
        for _ in range(n):
            yield

    def fields(self) -> Any:
        """(number, kind) of each field of a structure; its value is to be read in between."""
        field = 0
        while (head := self._byte()) & 0x0F:
            field = field + (head >> 4) if head >> 4 else self.int32()
            field = (field + 2**15) % 2**16 - 2**15  # as C++ counts
            yield field, head & 0x0F

    def skip(self, kind: int, depth: int = 0) -> None:
        """A value; true and false as fields have none."""
        if depth > _MOST_DEPTH:
            raise ValueError("values in values without an end")
        if kind in _LISTS:
            head = self._byte()
            self._skip_all((head & 0x0F,), head >> 4 if head >> 4 < 15 else self._varint(), depth)
        elif kind == _MAP:
            if n := self._varint():
                kinds = self._byte()
                self._skip_all((kinds >> 4, kinds & 0x0F), n, depth)
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        elif kind == _BINARY:
            self._pass(self._varint())
        elif kind in _FIXED:
            self._pass(_FIXED[kind])
        elif kind in _INTEGERS:
            self._varint()
        else:
            raise ValueError(f"a value of unknown kind {kind}")

    def _skip_all(self, kinds: tuple[int, ...], n: int, depth: int) -> None:
        for _ in range(n):
            for kind in kinds:
                if kind in _BOOLS:
                    self._pass(1)
                else:
                    self.skip(kind, depth + 1)

    def _pass(self, n: int) -> None:
        self.at += n
        if self.at > len(self._data):
            raise IndexError
