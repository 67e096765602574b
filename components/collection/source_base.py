"""What every source of pictures has in common: what it lists, how it is read, and which names it takes."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

_NETPBM = (".pgm", ".ppm", ".pbm", ".pnm")
PICTURE_SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", *_NETPBM]
)
_SHOWN, _SHOWN_NAMES = 6, 20
METADATA_NAMES = frozenset({"metadata.csv", "metadata.jsonl"})
ARCHIVE_SUFFIXES = frozenset({".tar", ".zip", ".parquet"})


@dataclass(frozen=True)
class Item:
    """One listed object. `pin` is what a bucket knows of it (etag, version); None: only its content can pin it."""

    key: str
    size: int
    pin: str | None

    @property
    def is_metadata(self) -> bool:
        return PurePosixPath(self.key).name in METADATA_NAMES


def is_picture(name: str) -> bool:
    """Is a file of this name a picture?"""
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def is_wanted(name: str) -> bool:
    """Is a file of this name a picture or metadata?"""
    return is_picture(name) or PurePosixPath(name).name in METADATA_NAMES


def is_archive(name: str) -> bool:
    """Is a file of this name an archive of pictures?"""
    return PurePosixPath(name).suffix.lower() in ARCHIVE_SUFFIXES


@dataclass
class LeftOut:
    """What a listing did not take."""

    wanted: Callable[[str], bool] = is_wanted
    """Whether a file of this name is listed."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Files that are not pictures, by suffix or by what they are."""
    misnamed: list[str] = field(default_factory=list)
    """Pictures whose names a line of collection.lock cannot hold."""

    def takes(self, key: str) -> bool:
        """Whether an object of this key is listed; remembers it if not."""
        if not self.wanted(key):
            self.kinds[PurePosixPath(key).suffix.lower() or "without a suffix"] += 1
        elif is_misnamed(key):
            self.misnamed.append(key)
        else:
            return True
        return False

    @property
    def n(self) -> int:
        return self.kinds.total() + len(self.misnamed)

    def __str__(self) -> str:
        """E.g. `95 .heic, 3 .mov`."""
        kinds = sorted(self.kinds.items(), key=lambda item: (-item[1], item[0]))
        said = [f"{n} {_printable(kind)}" for kind, n in kinds[:_SHOWN]]
        said += [f"{sum(n for _, n in kinds[_SHOWN:])} others"] if kinds[_SHOWN:] else []
        if self.misnamed:
            more = f" and {len(self.misnamed) - _SHOWN_NAMES} more" if len(self.misnamed) > _SHOWN_NAMES else ""
            names = ", ".join(f"'{_printable(key)}'" for key in self.misnamed[:_SHOWN_NAMES])
            said.append(f"{len(self.misnamed)} by names that are not UTF-8 or hold control characters: {names}{more}")
        return ", ".join(said) or "nothing"


class Source(Protocol):
    """Read-only objects by key: a POSIX path relative to the root. Every method raises DataError naming the key."""

    uri: str
    follows_links: bool
    """Whether links may lead out of a folder; elsewhere there are none."""
    left_out: LeftOut
    """What the last complete listing did not take."""
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


def is_misnamed(key: str) -> bool:
    """Has it control characters or is it not UTF-8, so that a line of collection.lock cannot hold it?"""
    return any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in key)


def _printable(name: str) -> str:
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in readable)
