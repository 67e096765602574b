"""The Store protocol: bytes at immutable keys, with the conditional writes that commits and leases rest on."""

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.errors import SOMEBODY_MUST_ACT, ArtifactError, StoreRefusedError
from components.files import replacing

RESERVED = ".rcg-store"
"""First part of a key that a store keeps for itself (temporary files, locks)."""


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object. `etag` changes whenever the bytes do and is what `if_match` compares."""

    key: str
    size: int
    etag: str


class Store(Protocol):
    """Keys are relative POSIX paths below `uri`. Every method raises StoreError when the store does not answer.

    Raises: MissingError for an absent key (get, upload's source, download, local_path), ConflictError when a condition
    fails, ArtifactError for a key that leaves the store.
    """

    @property
    def uri(self) -> str:
        """What open_store() takes to open the same store again."""
        ...

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes, or bytes[start:stop]; empty when start lies beyond the end."""
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write atomically and return the new etag. At most one writer wins `if_absent` or a given `if_match`."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """None when the key is absent."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below the folder `prefix` ("" for all) in key order, streamed."""
        ...

    def upload(self, key: str, path: Path) -> None: ...
    def download(self, key: str, path: Path) -> None: ...

    def delete(self, key: str) -> None:
        """Remove the object; absent is fine. Never used to release a lock."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Where the bytes lie on this machine, to read them without a copy; None for a remote store."""
        ...


@contextlib.contextmanager
def receiving(path: Path) -> Iterator[Path]:
    """As replacing(), for what comes out of a store; makes the folder.

    Raises: StoreRefusedError that names the folder when it is full, read-only or forbidden, not the store.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        if error.errno not in SOMEBODY_MUST_ACT | {errno.EEXIST, errno.ENOTDIR}:
            raise
        raise StoreRefusedError(
            f"cannot write into {path.parent}", got=error.strerror, fix="make room there or allow it, then run it again"
        ) from error


def check_key(key: str) -> str:
    """The key itself, if it is a plain relative path. Raises: ArtifactError for one that could leave the store."""
    parts = key.split("/")
    unsafe = any(part in ("", ".", "..") for part in parts) or parts[0] == RESERVED
    if unsafe or "\\" in key or not key.isprintable():
        raise ArtifactError(
            "unsafe name in a store",
            got=repr(key),
            expected="a relative path like out/1/weights.safetensors, without '..', empty parts or a leading '/'",
            fix="if it came from a manifest, that manifest was tampered with: copy the artifact again",
        )
    return key


class Prefix:
    """A store seen from one folder of it: keys are relative to that folder and cannot leave it."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, check_key(prefix.rstrip("/"))

    @property
    def uri(self) -> str:
        return f"{self._store.uri.rstrip('/')}/{self._prefix}"

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{check_key(key)}"

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        return self._store.get(self._key(key), start=start, stop=stop)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        return self._store.put(self._key(key), data, if_absent=if_absent, if_match=if_match)

    def head(self, key: str) -> ObjectInfo | None:
        info = self._store.head(self._key(key))
        return None if info is None else self._relative(info)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        below = prefix.rstrip("/")
        return map(self._relative, self._store.list(self._key(below) if below else self._prefix))

    def upload(self, key: str, path: Path) -> None:
        self._store.upload(self._key(key), path)

    def download(self, key: str, path: Path) -> None:
        self._store.download(self._key(key), path)

    def delete(self, key: str) -> None:
        self._store.delete(self._key(key))

    def local_path(self, key: str) -> Path | None:
        return self._store.local_path(self._key(key))

    def _relative(self, info: ObjectInfo) -> ObjectInfo:
        return ObjectInfo(info.key[len(self._prefix) + 1 :], info.size, info.etag)
