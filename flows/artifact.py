"""Artifacts: an immutable prefix in the store and the manifest that commits it; what a stage reads and writes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from components.base import Config


class FileEntry(Config):
    """Size in bytes and sha256 (hex) of one file."""

    size: int
    sha256: str


class Manifest(Config):
    """The commit: logical path -> file. Its canonical JSON's sha256 is the content digest."""

    schema_version: int
    stage: str
    files: dict[str, FileEntry]


class InputArtifact(Protocol):
    """A parent's committed artifact. Bytes are checked against the manifest when they are first read."""

    manifest: Manifest
    digest: str

    def path(self, name: str) -> Path:
        """A local, read-only path of the file; fetched into scratch when the store is remote."""
        ...

    def read_bytes(self, name: str) -> bytes: ...
    def read_json(self, name: str) -> Any: ...


class Inputs(Protocol):
    """What a stage reads: its parents, collection.lock's text (collect only) and where the images are."""

    source: str
    """`demo`, a folder or s3://bucket/prefix: a place, not identity."""
    collection_lock: Path | None

    def __getitem__(self, stage: str) -> InputArtifact: ...


class Output(Protocol):
    """Where a stage writes. Any rank may write, no two the same name. Nothing is visible before the commit."""

    def file(self, name: str) -> AbstractContextManager[Path]:
        """A temporary path to write; stored under `name` when the block ends without an exception."""
        ...

    def write_bytes(self, name: str, data: bytes) -> None: ...
    def write_json(self, name: str, value: Any) -> None: ...

    def memoised(self, name: str, key: str, make: Callable[[Path], None]) -> FileEntry:
        """A file that is a pure function of `key`: reuse it if any run has committed it, else make and commit it now."""
        ...
