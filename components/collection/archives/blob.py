"""One file of archives, wherever it lies, as ranges of bytes and as a stream that can seek."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from components.collection.source_base import Item, LeftOut
from components.errors import DataError

MOST_AT_ONCE = 2**31
"""Bytes. No index of an archive is larger."""


class Shelf(Protocol):
    """The folder or the bucket that archives lie in. Every method raises DataError naming the key."""

    uri: str
    follows_links: bool
    left_out: LeftOut
    reads_at_once: int
    window_bytes: int
    """What one read costs about as much as the wait for it."""

    def list(self) -> Iterator[Item]: ...

    def read(self, key: str, pin: str | None = None) -> bytes: ...

    def read_range(self, key: str, start: int, stop: int, pin: str | None) -> bytes: ...


@dataclass(frozen=True)
class Blob:
    """A file as it was when it was listed."""

    shelf: Shelf
    name: str
    size: int
    pin: str | None

    def read(self, start: int, stop: int) -> bytes:
        """Bytes start … stop - 1. Raises: DataError when the file has fewer."""
        stop = min(stop, self.size)
        if stop <= start:
            return b""
        data = self.shelf.read_range(self.name, start, stop, self.pin)
        if len(data) != stop - start:
            raise DataError(
                f"{self.name} has changed since it was listed",
                got=f"{start + len(data)} bytes",
                expected=f"{self.size} bytes",
                fix="run `rcg snapshot` again",
            )
        return data


class BlobStream(io.BufferedReader):
    """A blob as a file; for one thread. `most`: bytes that one read may ask for."""

    def __init__(self, blob: Blob, most: int = MOST_AT_ONCE) -> None:
        super().__init__(_Ranges(blob), blob.shelf.window_bytes)
        self._blob, self._most = blob, most

    def read(self, size: int | None = -1) -> bytes:
        """Raises: DataError for a read that only a damaged or hostile file asks for."""
        wanted = self._blob.size - self.tell() if size is None or size < 0 else size
        if wanted > self._most:
            raise DataError(
                f"{self._blob.name} is damaged: it announces a heading of {wanted} bytes",
                expected=f"at most {self._most}",
                fix="make the archive anew",
            )
        return super().read(size)


class _Ranges(io.RawIOBase):
    def __init__(self, blob: Blob) -> None:
        self._blob, self._at = blob, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blob.size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._blob.read(self._at, self._at + len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
