"""The Store protocol: bytes at immutable keys, with the conditional writes that commits and leases rest on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object. `etag` changes whenever the bytes do and is what `if_match` compares."""

    key: str
    size: int
    etag: str


class Store(Protocol):
    """Keys are relative POSIX paths below `uri`. Every method raises StoreError when the store does not answer.

    Raises: MissingError for an absent key (get, head, download), ConflictError when a condition fails.
    """

    uri: str

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes: ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write atomically and return the new etag. At most one writer wins `if_absent` or a given `if_match`."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """None when the key is absent."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below prefix in key order, streamed."""
        ...

    def upload(self, key: str, path: Path) -> None: ...
    def download(self, key: str, path: Path) -> None: ...

    def delete(self, key: str) -> None:
        """Remove the object; absent is fine. Never used to release a lock."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Where the bytes lie on this machine, to read them without a copy; None for a remote store."""
        ...
