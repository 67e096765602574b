"""Headers of pages: each is seen, however the stream is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.collection.archives import parquet_pages
from components.collection.archives.blob import Blob
from components.collection.archives.parquet_pages import PageHeader, PageStream, read_header
from components.collection.source import open_source
from components.errors import DataError
from tests.support.archives import pgm, write_parquet

ROWS = [(f"{i}.pgm", pgm(i % 256, 3 + i % 40)) for i in range(300)]
TEXTS = {"text": [f"a caption {i % 7}" * (i % 5) for i in range(300)]}


@dataclass
class Shelf:
    data: bytes
    window_bytes: int

    def read_range(self, _key: str, start: int, stop: int, _pin: str | None) -> bytes:
        return self.data[start:stop]


def stream(path: Path, window: int) -> PageStream:
    data = path.read_bytes()
    shelf: Any = Shelf(data, window)
    return PageStream(Blob(shelf, "x.parquet", len(data), None))


@pytest.mark.parametrize("window", [64, 1000, 2**20])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "brotli"])
def test_each_page_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, version: str, compression: str
) -> None:
    how: dict[str, Any] = {"data_page_version": version, "compression": compression, "write_batch_size": 10}
    path = write_parquet(tmp_path / "x.parquet", ROWS, TEXTS, group_rows=100, data_page_size=500, **how)
    seen: list[PageHeader] = []

    def look(data: memoryview) -> PageHeader:
        seen.append(read_header(data))
        return seen[-1]

    monkeypatch.setattr(parquet_pages, "read_header", look)
    pages = stream(path, window)
    file = pq.ParquetFile(pages, buffer_size=window)
    pages.watch()
    assert [row["image"]["bytes"] for batch in file.iter_batches(8) for row in batch.to_pylist()] == [
        b for _, b in ROWS
    ]
    columns = [file.metadata.row_group(i).column(j) for i in range(3) for j in range(3)]
    assert sum(page.packed + page.size for page in seen) == sum(column.total_compressed_size for column in columns)
    assert sum(page.unpacked + page.size for page in seen) == sum(column.total_uncompressed_size for column in columns)
    list(file.iter_batches(8))
    assert len(seen) > len(columns)


@pytest.mark.parametrize("at", range(4, 40))
def test_damage_in_a_header_ends(tmp_path: Path, at: int) -> None:
    path = write_parquet(tmp_path / "x.parquet", ROWS, group_rows=300)
    data = bytearray(path.read_bytes())
    for value in (0, 0x19, 0x7F, 0xFF):
        data[at] = value
        path.write_bytes(data)
        pages = stream(path, 2**20)
        file = pq.ParquetFile(pages)
        pages.watch()
        try:
            list(file.iter_batches(8))
        except (DataError, OSError, ValueError):
            continue


def test_a_damaged_footer_ends_no_process(tmp_path: Path) -> None:
    """Arrow aborts when it is asked for a column whose statistics do not fit."""
    path = write_parquet(tmp_path / "x.parquet", ROWS[:20], TEXTS | {"text": ["x"] * 20}, group_rows=5)
    whole = path.read_bytes()
    n = int.from_bytes(whole[-8:-4], "little")
    first, end = len(whole) - 8 - n, len(whole) - 4
    for at in (*range(first, first + 70), *range(first + 70, end, 61)):
        data = bytearray(whole)
        data[at] ^= 0x2B
        path.write_bytes(data)
        try:
            source = open_source(str(path))
            assert all(source.read(item.key) is not None for item in source.list())
        except DataError:
            continue


def test_headers_that_are_none() -> None:
    sizes = bytes([0x15, 0, 0x15, 20, 0x15, 8])  # kind, unpacked, packed
    assert read_header(memoryview(sizes + b"\0")) == PageHeader(0, 10, 4, 7)
    assert read_header(memoryview(sizes + b"\x05\x84\x80\x08\x30\0")).unpacked == 24, "field 65538 is 2 in C++"
    again = bytes([0x1C, 0x19, 0x25, 2, 4, 0x18, 2, 65, 66, 0x1B, 1, 0x81, 1, 65, 1, 0x11, 0x17, *[0] * 8, 0, 0])
    assert read_header(memoryview(sizes + again)) == PageHeader(0, 10, 4, 6 + len(again))
    for data in (b"\0", sizes[:4] + b"\0", sizes + b"\x1f", sizes + b"\x1c" * 99, b"\x15" + b"\xff" * 11):
        with pytest.raises(ValueError, match=r"no sizes|unknown kind|without an end"):
            read_header(memoryview(data))
    for data in (b"", sizes, sizes + b"\x18\x7f", sizes + b"\x19\xf1\xff\xff\x7f"):
        with pytest.raises(IndexError):
            read_header(memoryview(data))
