"""collection.lock: to pictures what a lock file is to packages. Lines of text, made to be committed and diffed.

    rcg-collection-lock 1
    links followed                                 only where `rcg snapshot --follow-links` asked for it
    metadata 34018 <sha256> metadata.csv           labels and captions; may change
    chunk c00000 512 <sha256 of its lines>         immutable once written; new pictures go into new chunks
    0123456789abcdef 75 digits/0000.pgm            pin, size in bytes, key
    …
    end 1797 <sha256 of every byte above>

A pin of 16 hex digits is of the content and part of the identity. A pin with a colon (etag:… or etag:…,version:…, from
a bucket) says how to find the object again; it stands outside the chunk's digest. Line ends may be those of Windows.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from components.documents import CONFLICT
from components.errors import ConfigError, DataError, TamperedError
from components.files import file_sha256

_HEADER = b"rcg-collection-lock 1\n"
_LINKS = b"links followed\n"
_MEND = "restore it (`git checkout collection.lock`), or start over with `rcg snapshot --rebuild`"

_JOIN = "during the merge `rcg snapshot` joins both branches; after it, start over with `rcg snapshot --rebuild`"


@dataclass(frozen=True)
class Entry:
    """One picture of a collection."""

    key: str
    size: int
    pin: str

    @property
    def locator(self) -> str | None:
        """The pin if it merely locates, None if it is of the content."""
        return self.pin if ":" in self.pin else None

    @property
    def etag(self) -> str | None:
        """The part of a locating pin that changes with the content."""
        return self.pin.partition(",")[0] if ":" in self.pin else None

    @property
    def identity(self) -> str:
        """The line without a pin that merely locates."""
        return f"{'-' if self.locator else self.pin} {self.size} {self.key}\n"


@dataclass(frozen=True)
class MetadataFile:
    """A file of labels and captions, by its whole sha256."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Chunk:
    """A group of pictures that never changes. `offset` is where its lines begin in the file."""

    name: str
    count: int
    digest: str
    offset: int


@dataclass(frozen=True)
class Lock:
    """A checked collection.lock: its headings in memory, its pictures on disk."""

    path: Path
    metadata: list[MetadataFile]
    chunks: list[Chunk]
    follows_links: bool = False
    """Whether links of the folder are followed, as `rcg snapshot --follow-links` asked for."""

    @property
    def count(self) -> int:
        return sum(chunk.count for chunk in self.chunks)

    @property
    def identity(self) -> str:
        """Equal for equal collections, wherever their objects lie."""
        parts = [f"{m.key} {m.sha256}" for m in self.metadata] + [f"{c.name} {c.count} {c.digest}" for c in self.chunks]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def entries(self, chunk: Chunk) -> list[Entry]:
        """The pictures of one chunk. Raises: TamperedError when the file has changed meanwhile."""
        with self.path.open("rb") as file:
            file.seek(chunk.offset)
            lines = [file.readline() for _ in range(chunk.count)]
        try:
            parts = [line.decode().rstrip("\r\n").split(" ", 2) for line in lines]
            entries = [Entry(key, int(size), pin) for pin, size, key in parts]
        except ValueError as error:
            raise _tampered(self.path) from error
        if chunk_digest(entries) != chunk.digest:
            raise _tampered(self.path)
        return entries


def chunk_name(position: int) -> str:
    """Of the chunk at a position, from 0."""
    return f"c{position:05d}"


def chunk_digest(entries: Iterable[Entry]) -> str:
    """sha256 of the identities of a chunk's pictures."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry.identity.encode())
    return digest.hexdigest()


def read_lock(path: Path) -> Lock:
    """Read and check the whole file in one pass, keeping only the headings.

    Raises: DataError when it is absent, TamperedError when any byte is not what `rcg snapshot` wrote.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist", fix="list your pictures first: `rcg snapshot FOLDER`, or `rcg snapshot demo`"
        )
    metadata: list[MetadataFile] = []
    chunks: list[Chunk] = []
    offset, whole, follows_links = 0, hashlib.sha256(), False
    with path.open("rb") as file:
        for raw in file:
            line = raw.replace(b"\r\n", b"\n")
            if line == _end(sum(chunk.count for chunk in chunks), whole.hexdigest()) and not file.read(1):
                return Lock(path, metadata, chunks, follows_links)
            if line.startswith(CONFLICT):
                raise TamperedError(f"{path} holds the conflict of a git merge", fix=_JOIN)
            follows_links = follows_links or (line == _LINKS and not chunks)
            whole.update(line)
            offset += len(raw)
            try:
                _take_heading(line.decode(), offset, metadata, chunks)
            except ValueError as error:
                raise _tampered(path) from error
    raise _tampered(path)


def _take_heading(line: str, offset: int, metadata: list[MetadataFile], chunks: list[Chunk]) -> None:
    if line.startswith("metadata "):
        _, size, sha256, key = line.rstrip("\n").split(" ", 3)
        metadata.append(MetadataFile(key, int(size), sha256))
    elif line.startswith("chunk "):
        _, name, count, chunk_sha256 = line.split()
        chunks.append(Chunk(name, int(count), chunk_sha256, offset))


def write_lock(
    path: Path,
    metadata: Sequence[MetadataFile],
    chunks: Iterable[tuple[str, Sequence[Entry]]],
    *,
    follows_links: bool = False,
) -> bool:
    """Write the file whole and in one step; False when it held the same bytes already.

    One chunk is in memory at a time. `metadata` is read after the last chunk: one pass over a source may fill both.
    Whatever `chunks` raises leaves the file as it was. Raises: ConfigError when it cannot be written.
    """
    temporary, body = (path.with_name(f".{path.name}.{os.getpid()}{end}") for end in ("", ".body"))
    digest = hashlib.sha256()
    try:
        count = _write_chunks(body, chunks)
        with temporary.open("wb") as file, body.open("rb") as written:
            for line in chain([_HEADER], [_LINKS] * follows_links, map(_metadata_line, metadata), written):
                digest.update(line)
                file.write(line)
            file.write(_end(count, digest.hexdigest()))
        if path.is_file() and file_sha256(path) == file_sha256(temporary):
            return False
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written", got=error) from error
    finally:
        temporary.unlink(missing_ok=True)
        body.unlink(missing_ok=True)
    return True


def _write_chunks(path: Path, chunks: Iterable[tuple[str, Sequence[Entry]]]) -> int:
    """The chunks' lines; returns the number of pictures."""
    count = 0
    with path.open("wb") as file:
        for name, entries in chunks:
            count += len(entries)
            file.write(f"chunk {name} {len(entries)} {chunk_digest(entries)}\n".encode())
            file.writelines(f"{entry.pin} {entry.size} {entry.key}\n".encode() for entry in entries)
    return count


def _metadata_line(file: MetadataFile) -> bytes:
    return f"metadata {file.size} {file.sha256} {file.key}\n".encode()


def _end(count: int, digest: str) -> bytes:
    return f"end {count} {digest}\n".encode()


def _tampered(path: Path) -> TamperedError:
    return TamperedError(f"{path} is not as `rcg snapshot` wrote it: its digest does not match", fix=_MEND)
