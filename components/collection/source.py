"""Where pictures come from: a package, a folder, a bucket, archives in either.

A source is a place; collection.lock is the identity.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from components.collection.packaged import PACKAGED
from components.collection.source_base import Item, LeftOut, Source, is_archive, is_picture, is_wanted
from components.errors import ConfigError, DataError
from components.store import check_slashes

_FOLLOW = "`rcg snapshot --follow-links` if the link is meant; else put what it leads to there, or remove it"


def open_source(uri: str, *, follows_links: bool = False) -> Source:
    """A name in PACKAGED; a bucket's prefix (s3://bucket/prefix) or a folder, also of archives; an archive.

    Links may lead out of a folder only where they are followed.

    A folder or prefix that holds archives and no picture is one of archives. Raises: ConfigError when there is no such
    source.
    """
    if uri in PACKAGED:
        return PACKAGED[uri]()
    if not uri.startswith("s3://"):
        check_slashes(uri)
        return _open_path(Path(uri.removeprefix("file://")), follows_links)
    from components.collection.archives.source import ArchiveSource, is_shelved
    from components.collection.source_s3 import S3Source

    folder, _, name = uri.rpartition("/")
    if is_archive(name) and folder != "s3:/":
        return ArchiveSource(S3Source(folder, wanted=is_shelved, only=name), only=name)
    names = (item.key for item in S3Source(uri, wanted=_is_picture_or_archive).list())
    return ArchiveSource(S3Source(uri, wanted=is_shelved)) if _are_archives(names) else S3Source(uri)


def _open_path(path: Path, follows_links: bool) -> Source:
    from components.collection.archives.source import ArchiveSource, is_shelved

    if path.is_file() and is_archive(path.name):
        shelf = FolderSource(path.parent, follows_links=follows_links, wanted=is_shelved, only=path.name)
        return ArchiveSource(shelf, only=path.name)
    if path.is_dir() and _are_archives(_names(path)):
        return ArchiveSource(FolderSource(path, follows_links=follows_links, wanted=is_shelved))
    return FolderSource(path, follows_links=follows_links)


def _is_picture_or_archive(name: str) -> bool:
    return is_archive(name) or is_picture(name)


def _are_archives(names: Iterable[str]) -> bool:
    """Is there an archive and no picture? Stops at the first picture."""
    found = False
    for name in names:
        if is_picture(name):
            return False
        found = found or is_archive(name)
    return found


def _names(root: Path) -> Iterator[str]:
    """Names of all files below a folder, in any order, without those that cannot be looked at."""
    folders = [root]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                else:
                    yield entry.name


class FolderSource:
    """Every picture below a folder, by its suffix. Hidden files are skipped.

    Links lead to files within the folder; to folders and out of it only where they are followed, and never in a circle.
    `wanted`: which names are listed; `only`: the one file that is.
    """

    reads_at_once = 1
    window_bytes = 64 * 2**10

    def __init__(
        self,
        root: Path,
        *,
        follows_links: bool = False,
        wanted: Callable[[str], bool] = is_wanted,
        only: str | None = None,
    ) -> None:
        if not root.is_dir():
            raise ConfigError("the folder of pictures does not exist", got=root, fix="check the path, or RCG_SOURCE")
        self.root = Path(os.path.realpath(root))
        self.uri = str(self.root)
        self.follows_links = follows_links
        self._wanted, self._only = wanted, only
        self.left_out = LeftOut(wanted)

    def list(self) -> Iterator[Item]:
        self.left_out = LeftOut(self._wanted)
        if self._only is not None:
            item = self._item(self._only)
            yield from [item] if item else []
            return
        yield from self._walk("", (str(self.root),))

    def read(self, key: str, pin: str | None = None) -> bytes:  # noqa: ARG002  (the content is the pin)
        try:
            return self._path(key).read_bytes()
        except OSError as error:
            raise self._unreadable(key, error) from error

    def read_range(self, key: str, start: int, stop: int, pin: str | None) -> bytes:  # noqa: ARG002  (has no pins)
        """Bytes start … stop - 1 of a file, or as many as there are."""
        try:
            with self._path(key).open("rb", buffering=0) as file:
                file.seek(start)
                return file.read(stop - start)
        except OSError as error:
            raise self._unreadable(key, error) from error

    def content_pin(self, key: str) -> str:
        try:
            with self._path(key).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except OSError as error:
            raise self._unreadable(key, error) from error

    def _walk(self, prefix: str, above: tuple[str, ...]) -> Iterator[Item]:
        """`above`: the real paths of the folder and of those that lead to it."""
        try:
            with os.scandir(self.root / prefix) as entries:
                names = sorted(
                    e.name + "/" if self._is_folder(prefix, e) else e.name for e in entries if e.name[0] != "."
                )
        except OSError as error:
            raise self._unreadable(prefix, error) from error
        for name in names:
            key = prefix + name
            if name.endswith("/"):
                real = os.path.realpath(self.root / key)
                if real in above:
                    self.left_out.kinds["link back to its own folder"] += 1
                else:
                    yield from self._walk(key, (*above, real))
            elif self.left_out.takes(key):
                item = self._item(key)
                if item:
                    yield item

    def _is_folder(self, prefix: str, entry: os.DirEntry[str]) -> bool:
        if not self.follows_links and entry.is_symlink() and entry.is_dir():
            raise DataError("a link to a folder", got=prefix + entry.name, fix=_FOLLOW)
        return entry.is_dir(follow_symlinks=self.follows_links)

    def _item(self, key: str) -> Item | None:
        try:
            path = self._path(key)
            if not path.is_file():
                self.left_out.kinds["that is no file"] += 1  # a pipe, a socket
                return None
            return Item(key, path.stat().st_size, None)
        except OSError as error:
            raise self._unreadable(key, error) from error

    def _path(self, key: str) -> Path:
        """The file itself. Raises: FileNotFoundError, DataError when the key leads out of the folder."""
        real = Path(os.path.realpath(self.root / key, strict=True))
        parts = PurePosixPath(key).parts
        if self.follows_links and not parts[0].startswith("/") and ".." not in parts:
            return real
        if not real.is_relative_to(self.root):
            raise DataError("a link out of the folder", got=f"{key} -> {real}", fix=_FOLLOW)
        return real

    def _unreadable(self, key: str, error: OSError) -> DataError:
        if not self.root.is_dir():
            return DataError(
                "the folder of pictures is gone", got=self.root, fix="bring it back and run the same command"
            )
        if isinstance(error, FileNotFoundError):
            return DataError(
                f"{key} is gone from {self.root}", fix="bring it back, or start over with `rcg snapshot --rebuild`"
            )
        return DataError(f"{key} cannot be read", got=error.strerror or error)
