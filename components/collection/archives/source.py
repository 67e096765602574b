"""An archive, or a folder or bucket of them, as if each were unpacked into a folder of its name.

Keys of one archive alone are its members' names, so that it lists what the unpacked folder would, and is the same
collection. What it says of its pictures is listed as a metadata.jsonl. All pins are of the content.
"""

import hashlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import itemgetter
from pathlib import PurePosixPath
from typing import Protocol

from components.collection.archives.blob import Blob, Shelf
from components.collection.archives.directory import SAID, Directory, Place
from components.collection.archives.parquet import ParquetArchive
from components.collection.archives.tar import TarArchive
from components.collection.archives.zip import ZipArchive
from components.collection.source_base import METADATA_NAMES, Item, LeftOut, is_archive
from components.errors import DataError

_KEPT_BYTES = 256 * 2**20
"""Of directories and buffers; the last two are kept in any case."""
_FEWEST_KEPT = 2


class Archive(Protocol):
    """One archive. Every method raises DataError naming the archive and the member."""

    held_bytes: int
    """Of buffers, at most."""

    def directory(self, left_out: LeftOut) -> Directory:
        """What it holds; the rest goes to left_out."""
        ...

    def read(self, name: str, place: Place) -> bytes: ...

    def pieces(self, name: str, place: Place) -> Iterator[bytes]:
        """The same in turn, fast for one after the other as they lie."""
        ...


FORMATS: dict[str, type[TarArchive] | type[ZipArchive] | type[ParquetArchive]] = {
    ".tar": TarArchive,
    ".zip": ZipArchive,
    ".parquet": ParquetArchive,
}


def is_shelved(name: str) -> bool:
    """Is it an archive, or metadata that lies beside archives?"""
    return is_archive(name) or PurePosixPath(name).name in METADATA_NAMES


class ArchiveSource:
    """Pictures of the archives on a shelf. `only`: the one archive that is meant; its keys have no folder before."""

    def __init__(self, shelf: Shelf, *, only: str | None = None) -> None:
        self._shelf, self._only = shelf, only
        self.uri = f"{shelf.uri}/{only}" if only else shelf.uri
        self.reads_at_once = shelf.reads_at_once
        self.left_out = LeftOut()
        self._lock = threading.Lock()
        self._archives: Sequence[tuple[str, Item]] | None = None
        self._open: OrderedDict[str, tuple[Archive, Directory]] = OrderedDict()

    @property
    def follows_links(self) -> bool:
        """Whether links to archives may lead out of the folder."""
        return self._shelf.follows_links

    @follows_links.setter
    def follows_links(self, value: bool) -> None:
        self._shelf.follows_links = value

    def list(self) -> Iterator[Item]:
        """Pictures and metadata files in key order, one archive after the other."""
        left_out, beside = LeftOut(), []
        archives = []
        for item in self._shelf.list():
            archives.append((self._folder(item.key), item)) if is_archive(item.key) else beside.append((item.key, item))
        with self._lock:
            self._archives = _apart(archives, self.uri)
            self._open.clear()
        for prefix, item in sorted(archives + beside, key=itemgetter(0)):
            if not is_archive(item.key):
                yield Item(item.key, item.size, None)
                continue
            with self._lock:
                _, directory = self._opened(prefix, item, left_out)
            for name, size in directory.items():
                yield Item(prefix + name, size, None)
        left_out.kinds.update(self._shelf.left_out.kinds)
        left_out.misnamed += self._shelf.left_out.misnamed
        self.left_out = left_out

    def read(self, key: str, pin: str | None = None) -> bytes:  # noqa: ARG002  (the content is the pin)
        """A picture or metadata file. Raises: DataError naming it, and the archive where that is damaged."""
        found = self._find(key)
        if found is None:
            return self._shelf.read(key)
        archive, name, place, said = found
        return said if place.method == SAID else archive.read(name, place)

    def content_pin(self, key: str) -> str:
        """The pin of its bytes, which are not held at once."""
        found = self._find(key)
        if found is None:
            return hashlib.sha256(self._shelf.read(key)).hexdigest()[:16]
        archive, name, place, said = found
        digest = hashlib.sha256(said if place.method == SAID else b"")
        for piece in () if place.method == SAID else archive.pieces(name, place):
            digest.update(piece)
        return digest.hexdigest()[:16]

    def _find(self, key: str) -> tuple[Archive, str, Place, bytes] | None:
        """(archive, name, place, what it says); None for what lies beside archives. Raises: DataError."""
        with self._lock:
            if self._archives is None:
                found = [(self._folder(item.key), item) for item in self._shelf.list() if is_archive(item.key)]
                self._archives = _apart(found, self.uri)
            at = bisect_right(self._archives, key, key=itemgetter(0)) - 1
            prefix, item = self._archives[at] if at >= 0 else ("", None)
            if item is None or not key.startswith(prefix):
                if PurePosixPath(key).name in METADATA_NAMES:
                    return None
                raise _gone(key, self.uri)
            archive, directory = self._opened(prefix, item, LeftOut())
        place = directory.find(key[len(prefix) :])
        if place is None:
            raise _gone(key, self.uri)
        return archive, key[len(prefix) :], place, directory.said

    def _folder(self, key: str) -> str:
        """What the keys of an archive begin with."""
        return "" if self._only else f"{PurePosixPath(key).with_suffix('')}/"

    def _opened(self, prefix: str, item: Item, left_out: LeftOut) -> tuple[Archive, Directory]:
        if prefix not in self._open:
            archive = FORMATS[PurePosixPath(item.key).suffix.lower()](Blob(self._shelf, item.key, item.size, item.pin))
            self._open[prefix] = archive, archive.directory(left_out)
            while len(self._open) > _FEWEST_KEPT and self._nbytes > _KEPT_BYTES:
                self._open.popitem(last=False)
        self._open.move_to_end(prefix)
        return self._open[prefix]

    @property
    def _nbytes(self) -> int:
        return sum(directory.nbytes + archive.held_bytes for archive, directory in self._open.values())


def _apart(archives: Sequence[tuple[str, Item]], uri: str) -> Sequence[tuple[str, Item]]:
    """(folder, archive), in order. Raises: DataError for two whose keys would mix."""
    ordered = sorted(archives, key=itemgetter(0))
    for (folder, one), (below, other) in pairwise(ordered):
        if below.startswith(folder):
            raise DataError(
                f"two archives in {uri} would fill one folder",
                got=f"{one.key} and {other.key}",
                fix="rename one of them",
            )
    return ordered


def _gone(key: str, uri: str) -> DataError:
    return DataError(f"{key} is gone from {uri}", fix="bring it back, or start over with `rcg snapshot --rebuild`")
