"""Artifacts: an immutable prefix in the store and the manifest that commits it; what a stage reads and writes."""

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

from pydantic import Field, StringConstraints

from components.config import Config
from components.documents import json_lines, parse_json, validated
from components.errors import ArtifactError, DivergedError, TamperedError
from components.files import file_sha256

SCHEMA = 1
"""Version of everything that is written here. Part of every fingerprint: raise it when the bytes of outputs change."""

Millis = Annotated[int, Field(ge=0, lt=253_402_300_800_000)]
"""Milliseconds since 1970, before the year 10000: what has a date."""

MAX_INLINE_FILES = 10_000
"""A manifest with more files keeps its listing in an object of its own."""

_CANONICAL: dict[str, Any] = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False}


SHA256 = "[0-9a-f]{64}"
Sha256 = Annotated[str, StringConstraints(pattern=f"^{SHA256}$")]
"""A digest, wherever one is read: it becomes part of keys and of paths."""
Commit = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
RunPrefix = Annotated[str, StringConstraints(pattern=f"^runs/[a-z][a-z0-9_]*/{SHA256}$")]
"""Where a run lies in a store."""


class Record(Config):
    """Base of what flows writes as JSON."""

    sized = False

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read what to_json() wrote. Raises: ArtifactError naming `where` for anything else."""
        value = _unsealed(parse_json(data, where), where)
        version = value.get("schema_version") if isinstance(value, dict) else None
        if not isinstance(version, int):
            raise ArtifactError(
                f"{where} has no schema_version", got=_excerpt(data), expected=f"schema_version: {SCHEMA}"
            )
        if version > SCHEMA:
            raise ArtifactError(
                f"{where} was written by a newer version of this program",
                got=f"schema_version {version}",
                expected=f"at most {SCHEMA}",
                fix="update this checkout",
            )
        return validated(cls, value, where)

    def to_json(self) -> bytes:
        """Canonical JSON: equal records give equal bytes."""
        return canonical_json(self.model_dump(mode="json"))


class SealedRecord(Record):
    """A record that nothing else names by digest: it carries its own, as `seal`, so that a wrong byte is found."""

    def to_json(self) -> bytes:
        value = self.model_dump(mode="json")
        return canonical_json({**value, "seal": digest_of(canonical_json(value))})


def _unsealed(value: Any, where: str) -> Any:
    """The value without its seal, if it has one. Raises: TamperedError when that is not of this value."""
    seal = value.pop("seal", None) if isinstance(value, dict) else None
    if seal is not None and seal != digest_of(json.dumps(value, **_CANONICAL).encode(errors="replace")):
        raise TamperedError(f"{where} does not match its seal: torn or edited by hand", expected=seal)
    return value


class FileEntry(Record):
    """Size in bytes and sha256 (hex) of one file."""

    size: int
    sha256: Sha256


class Manifest(Record):
    """The commit: logical path -> file. Its canonical JSON's sha256 is the content digest."""

    schema_version: int
    stage: str
    files: dict[str, FileEntry]


class Listing(FileEntry):
    """Stands in a manifest for more files than fit: JSON lines, named by their digest."""

    n_files: int


class _Row(FileEntry):
    """A line of a listing."""

    name: str


class LongManifest(Record):
    """A manifest whose files are in a listing.

    That is JSON lines, not Parquet: the bytes, hence the digest, must not depend on a library's version.
    """

    schema_version: int
    stage: str
    listing: Listing


class InputArtifact(Protocol):
    """A parent's committed artifact. Bytes are checked against the manifest when they are first read."""

    @property
    def manifest(self) -> Manifest: ...
    @property
    def digest(self) -> str:
        """The content digest."""
        ...

    def path(self, name: str) -> Path:
        """A local, read-only path of the file; fetched into scratch when the store is remote."""
        ...

    def release(self, name: str) -> None:
        """Forget a file: where it was fetched, its place on the disk is free again."""
        ...

    def read_bytes(self, name: str) -> bytes: ...
    def read_json(self, name: str) -> Any: ...


class Inputs(Protocol):
    """What a stage reads: its parents, collection.lock's text (collect only) and where the images are."""

    @property
    def source(self) -> str:
        """A name of packaged pictures, a folder or s3://bucket/prefix: a place, not identity."""
        ...

    @property
    def collection_lock(self) -> Path | None: ...
    def __getitem__(self, stage: str) -> InputArtifact: ...
    def __contains__(self, stage: str) -> bool:
        """Whether the pipeline has this parent."""
        ...


class Output(Protocol):
    """Where a stage writes. Any rank may write, no two the same name. Nothing is visible before the commit."""

    def file(self, name: str) -> AbstractContextManager[Path]:
        """A temporary path to write; stored under `name` when the block ends without an exception."""
        ...

    def write_bytes(self, name: str, data: bytes) -> None: ...
    def write_json(self, name: str, value: Any) -> None:
        """Plain values only. Raises: DivergedError for a number that is not finite."""
        ...

    def memoised(self, name: str, key: str, make: Callable[[Path], None]) -> FileEntry:
        """A file that is a pure function of `key`: reuse it if any run has committed it, else make and commit it now.

        Several ranks may ask for the same name and key: rank 0 collects so what the others have made.
        """
        ...

    def path(self, name: str) -> Path:
        """A local, read-only path of a file that this rank has written or memoised."""
        ...


def canonical_json(value: Any) -> bytes:
    """One spelling per value: sorted keys, no spaces, UTF-8, finite numbers."""
    return json.dumps(value, allow_nan=False, **_CANONICAL).encode()


def readable_json(value: Any, name: str) -> bytes:
    """Sorted and indented JSON for files that people read. Raises: DivergedError for NaN or infinity."""
    try:
        return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError as error:
        raise DivergedError(f"{name} would hold a number that is not finite", got=str(error)) from error


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file on this machine."""
    return FileEntry(size=path.stat().st_size, sha256=file_sha256(path))


def pack_manifest(manifest: Manifest) -> tuple[bytes, bytes | None]:
    """(manifest.json, listing or None). The content digest is the sha256 of the first."""
    if len(manifest.files) <= MAX_INLINE_FILES:
        return manifest.to_json(), None
    rows = (canonical_json({"name": n, **manifest.files[n].model_dump()}) for n in sorted(manifest.files))
    listing = b"".join(row + b"\n" for row in rows)
    head = Listing(size=len(listing), sha256=digest_of(listing), n_files=len(manifest.files))
    return LongManifest(schema_version=SCHEMA, stage=manifest.stage, listing=head).to_json(), listing


def listing_name(sha256: str) -> str:
    """Key of a listing below the run's prefix."""
    return f"listing/{sha256}.jsonl"


def read_head(data: bytes, stage: str, where: str) -> Manifest | LongManifest:
    """The manifest in `data` without its listing.

    Raises: ArtifactError when it is of another stage or a newer schema, TamperedError when it was edited or torn.
    """
    value = parse_json(data, where)
    long = isinstance(value, dict) and "listing" in value
    head: Manifest | LongManifest = LongManifest.parse(data, where) if long else Manifest.parse(data, where)
    if head.to_json() != data:
        raise TamperedError(
            f"{where} was edited by hand", got=_excerpt(data), expected="the canonical JSON of a commit"
        )
    if head.stage != stage:
        raise ArtifactError(f"{where} belongs to another stage", got=head.stage, expected=stage)
    return head


def unpack_manifest(data: bytes, stage: str, where: str, fetch: Callable[[str], bytes]) -> Manifest:
    """The manifest in `data`; `fetch(name)` reads its listing, if it has one. Raises as read_head."""
    head = read_head(data, stage, where)
    return head if isinstance(head, Manifest) else _with_listing(head, fetch(listing_name(head.listing.sha256)), where)


def _with_listing(head: LongManifest, listing: bytes, where: str) -> Manifest:
    if digest_of(listing) != head.listing.sha256:
        raise TamperedError(f"the listing of {where} does not match its digest", expected=head.listing.sha256)
    rows = [validated(_Row, row, place) for place, row in json_lines(listing, f"the listing of {where}")]
    files = {row.name: FileEntry(size=row.size, sha256=row.sha256) for row in rows}
    return Manifest(schema_version=head.schema_version, stage=head.stage, files=files)


def _excerpt(data: bytes) -> str:
    return repr(data[:80])
