"""A folder as a store: atomic puts, and conditional ones that hold between processes and threads."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from components.errors import ConflictError, MissingError, StoreError, StoreRefusedError
from components.process import machine, pid_exists
from components.store.base import RESERVED, ObjectInfo, check_key, receiving

_N_LOCKS = 256
_STALE_TEMPORARY_S = 7 * 86400
_WIDEST_MTIME_TICK_NS = 2_000_000_000  # FAT's; the coarsest clock that a file system keeps

_LACKING = (
    "the store needs hard links and file locks (flock), which this file system lacks: move it (RCG_STORE) to a "
    "local disk or a bucket"
)
_FIXES = {
    **dict.fromkeys((errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK), _LACKING),
    errno.ENOSPC: "free disk space, or move the store (RCG_STORE) to a larger disk; then run the same command again",
    errno.EDQUOT: "your disk quota is used up: free space or move the store (RCG_STORE)",
    errno.EFBIG: "the file size limit is reached: raise it (ulimit -f) or use another file system",
    errno.EACCES: "make the folder writable for this user, or move the store (RCG_STORE)",
    errno.EPERM: "make the folder writable for this user (the file system must also support hard links)",
    errno.EROFS: "the file system is mounted read-only: remount it or move the store (RCG_STORE)",
    errno.ENOTDIR: "a file is in the way: set RCG_STORE to a folder",
    errno.EEXIST: "a file is in the way: set RCG_STORE to a folder",
    errno.ENOENT: "the folder cannot be made, or vanished: check RCG_STORE",
}
"""Errors that no waiting mends, and what does."""


class LocalStore:
    """A store below one folder, for `file://` URIs.

    An object is written to a temporary file, synced, then linked or renamed into place: readers see all or nothing.
    Writers of one key take turns through a lock file. The etag is (mtime, inode, size), and writers make the mtime of
    a key grow strictly: an etag never comes back, and listing reads no bytes.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().absolute()
        self._swept = False

    @property
    def uri(self) -> str:
        return self.root.as_uri()

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        path = self._path(key)
        with self._reading(key), path.open("rb") as file:
            file.seek(start)
            return file.read() if stop is None else file.read(max(0, stop - start))

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        return self._write(key, lambda file: file.write(data), if_absent=if_absent, if_match=if_match)

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with self._explained("read", key):
            status = _regular(path)
        return None if status is None else ObjectInfo(key, status.st_size, _etag(status))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        below = prefix.rstrip("/")
        folder = self._path(below) if below else self.root
        with self._explained("list", prefix):
            yield from self._walk(folder, f"{below}/" if below else "")

    def upload(self, key: str, path: Path) -> None:
        def copy(file: BinaryIO) -> None:
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)

        if not path.is_file():
            raise MissingError(f"cannot store {key}: the file to upload is not there", got=str(path))
        self._write(key, copy)

    def download(self, key: str, path: Path) -> None:
        """Copy the object to `path`, which appears only when complete."""
        with self._reading(key), self._path(key).open("rb"), receiving(path) as temporary:
            shutil.copyfile(self._path(key), temporary)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._explained("delete", key):
            if _regular(path) is not None:
                path.unlink(missing_ok=True)

    def local_path(self, key: str) -> Path:
        path = self._path(key)
        with self._explained("read", key):
            if _regular(path) is None:
                self._missing(key)
        return path

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _walk(self, folder: Path, prefix: str) -> Iterator[ObjectInfo]:
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        named = [(e.name + "/" if e.is_dir(follow_symlinks=False) else e.name, e) for e in entries]
        for name, entry in sorted(named, key=lambda pair: pair[0]):  # "a.b" sorts before "a/b", as the full keys do
            if not prefix and entry.name == RESERVED:
                continue
            if name.endswith("/"):
                yield from self._walk(Path(entry.path), prefix + name)
            elif (status := _regular(Path(entry.path))) is not None:
                yield ObjectInfo(prefix + name, status.st_size, _etag(status))

    def _write(
        self, key: str, fill: Callable[[BinaryIO], object], *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        if if_absent and if_match is not None:
            raise ValueError("if_absent and if_match exclude each other")
        final = self._path(key)
        with self._explained("write", key), self._temporary() as temporary:
            # Mode 0444: whoever is handed local_path() cannot write into a committed file by accident.
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444)
            with os.fdopen(descriptor, "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            self._make_folder(final.parent)
            with self._lock(key):
                return _publish(temporary, final, key, if_absent=if_absent, if_match=if_match)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        folder = self.root / RESERVED / "tmp"
        self._make_folder(folder)
        if not self._swept:
            self._swept = True
            _sweep(folder)
        path = folder / f"{machine()}-{os.getpid()}-{uuid.uuid4().hex}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _is_shared(self) -> bool:
        """Whether the group of the store's folder may write to it; nobody else ever may, whatever the umask says."""
        return self.root.is_dir() and bool(self.root.stat().st_mode & stat.S_IWGRP)

    def _make_folder(self, folder: Path) -> None:
        """mkdir -p whose new entries survive a power cut."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(0o775 if self._is_shared() else 0o755, exist_ok=True)
        _sync_folder(folder.parent)

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        folder = self.root / RESERVED / "locks"
        self._make_folder(folder)
        name = hashlib.sha256(key.encode()).digest()[0] % _N_LOCKS
        group = 0o060 if self._is_shared() else 0
        descriptor = os.open(folder / f"{name:02x}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600 | group)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # Closing is not enough: a process forked meanwhile by another thread has the descriptor, and so the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        with self._explained("read", key):
            try:
                yield
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._missing(key)

    def _missing(self, key: str) -> NoReturn:
        raise MissingError(
            f"{key} is not in the store", got=self.uri, fix="check RCG_STORE, or: rcg data copy --from …"
        )

    @contextlib.contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what, fix = f"the store cannot {action} {key}: {error.strerror or error}", _FIXES.get(error.errno or 0)
            if fix is not None:
                raise StoreRefusedError(what, got=self.uri, fix=fix) from error
            fix = "check the disk and the mount of the store, then run again"
            raise StoreError(what, got=self.uri, fix=fix) from error


def _publish(temporary: Path, final: Path, key: str, *, if_absent: bool, if_match: str | None) -> str:
    """Move a synced file to its key if the condition holds; the key's lock is held."""
    current = _regular(final)
    if if_absent and current is not None:
        raise ConflictError(f"{key} exists already")
    if if_match is not None and (current is None or _etag(current) != if_match):
        raise ConflictError(f"{key} changed since it was read")
    _stamp(temporary, 0 if current is None else current.st_mtime_ns)
    etag = _etag(temporary.stat())
    if if_absent:
        try:
            os.link(temporary, final)
        except FileExistsError as error:
            raise ConflictError(f"{key} exists already") from error
    else:
        temporary.replace(final)
    _sync_folder(final.parent)
    return etag


def _stamp(path: Path, after_ns: int) -> None:
    """Give the file an mtime above `after_ns`, also where the file system rounds it."""
    mtime = max(time.time_ns(), after_ns + 1)
    os.utime(path, ns=(mtime, mtime))
    if path.stat().st_mtime_ns <= after_ns:
        mtime = after_ns + _WIDEST_MTIME_TICK_NS
        os.utime(path, ns=(mtime, mtime))


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}"


def _regular(path: Path) -> os.stat_result | None:
    """Status of a regular file; None for anything else: a symbolic link is not an object."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what killed writers left behind."""
    for path in folder.iterdir():
        where, _, rest = path.name.partition("-")
        pid = rest.partition("-")[0]
        with contextlib.suppress(OSError):
            dead = where == machine() and pid.isdigit() and not pid_exists(int(pid))
            if dead or time.time() - path.stat().st_mtime > _STALE_TEMPORARY_S:
                path.unlink()
