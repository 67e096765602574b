"""What every source of pictures has in common: what it lists, how it is read, and which names it takes."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from components.errors import DataError

PICTURE_SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".webp", ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".bmp", ".tif", ".tiff"]
)
METADATA_NAMES = frozenset({"metadata.csv", "metadata.jsonl"})


@dataclass(frozen=True)
class Item:
    """One listed object. `pin` is what a bucket knows of it (etag, version); None: only its content can pin it."""

    key: str
    size: int
    pin: str | None

    @property
    def is_metadata(self) -> bool:
        return PurePosixPath(self.key).name in METADATA_NAMES


class Source(Protocol):
    """Read-only objects by key: a POSIX path relative to the root. Every method raises DataError naming the key."""

    uri: str
    n_ignored: int
    """Files that the last complete listing left out because they are not pictures."""
    reads_at_once: int
    """How many reads at the same time it serves faster than one after the other."""

    def list(self) -> Iterator[Item]:
        """Pictures and metadata files in key order, streamed."""
        ...

    def read(self, key: str, pin: str | None = None) -> bytes:
        """`pin`: a locating pin of the lock; a source that gives such pins reads that very object or fails."""
        ...

    def content_pin(self, key: str) -> str:
        """pin_of(read(key)), without holding the bytes."""
        ...


def pin_of(data: bytes) -> str:
    """What collection.lock remembers of a content: the first 16 hex digits of its sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def is_wanted(name: str) -> bool:
    """Is a file of this name a picture or metadata?"""
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES or PurePosixPath(name).name in METADATA_NAMES


def check_name(key: str) -> None:
    """Raises: DataError for a name that a line of collection.lock cannot hold."""
    if any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in key):
        raise DataError("a file name with control characters, or not in UTF-8", got=repr(key), fix="rename the file")
