"""Pictures in a bucket: listed page by page, and read as they were when they were listed."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from components.collection.source_base import Item, LeftOut, is_wanted
from components.errors import ConfigError, DataError, StoreRefusedError
from components.store.s3_bucket import PATIENCE_S, Bucket, split_uri
from components.store.s3_clients import Piece, Pin
from components.store.s3_errors import S3Error

_PIECE_BYTES = 16 * 2**20


class S3Source:
    """Every picture below s3://bucket/prefix, by its suffix; hidden names and folder markers are skipped.

    Pins are etag:<etag>; in a bucket with versions etag:<etag>,version:<id>, and what was replaced can still be read.
    `wanted`: which names are listed; `only`: the one object that is.
    """

    reads_at_once = 16
    window_bytes = 4 * 2**20
    follows_links = False

    def __init__(self, uri: str, *, wanted: Callable[[str], bool] = is_wanted, only: str | None = None) -> None:
        name, root = split_uri(uri)
        self._wanted, self._only = wanted, only
        self._bucket, self._folder = Bucket(name, PATIENCE_S), f"{root}/" if root else ""
        self.uri = f"s3://{name}/{root}".rstrip("/")
        self.left_out = LeftOut(wanted)

    def list(self) -> Iterator[Item]:
        self.left_out = LeftOut(self._wanted)
        for listed in self._versions() if self._has_versions() else self._objects():
            key = listed["Key"][len(self._folder) :]
            if self._only not in (None, key):
                continue
            if key.endswith("/") or any(part.startswith(".") for part in key.split("/")):
                continue
            if not self.left_out.takes(key):
                continue
            if "" in key.split("/"):
                raise DataError("a key with an empty part", got=key, fix="copy the object to a key without //")
            yield Item(key, listed["Size"], _spell(listed["ETag"], listed.get("VersionId")))

    def read(self, key: str, pin: str | None = None) -> bytes:
        return self._get(key, 0, None, None if pin is None else _parse(pin)).data

    def read_range(self, key: str, start: int, stop: int, pin: str | None) -> bytes:
        """Bytes start … stop - 1 of an object, or as many as there are."""
        return self._get(key, start, stop, None if pin is None else _parse(pin)).data

    def content_pin(self, key: str) -> str:
        first = self._get(key, 0, _PIECE_BYTES, None)
        digest, done = hashlib.sha256(first.data), len(first.data)
        while done < first.size:
            piece = self._get(key, done, done + _PIECE_BYTES, Pin(first.etag))
            digest.update(piece.data)
            done += len(piece.data)
        return digest.hexdigest()[:16]

    def _get(self, key: str, start: int, stop: int | None, pin: Pin | None) -> Piece:
        full = self._folder + key
        try:
            return self._bucket.ask(f"read {key}", lambda objects, _: objects.get(full, start, stop, pin))
        except S3Error as failure:
            if failure.is_beyond_end:
                return Piece(b"", 0, "")
            raise self._explain(key, failure) from failure

    def _explain(self, key: str, failure: S3Error) -> DataError:
        fix = "bring it back, or start over with `rcg snapshot --rebuild`"
        if failure.is_conflict:
            return DataError(f"{key} has been replaced in {self.uri} since it was listed", fix=fix)
        return DataError(f"{key} is gone from {self.uri}", fix=fix)

    def _has_versions(self) -> bool:
        """Whether objects have versions, as far as this key may know."""
        try:
            return "Status" in self._bucket.request("get_bucket_versioning", f"list {self.uri}")
        except (ConfigError, StoreRefusedError, S3Error):
            return False  # not allowed to know, or a server without versions; other trouble shows in the listing

    def _objects(self) -> Iterator[dict[str, Any]]:
        more: dict[str, Any] = {}
        while True:
            page = self._bucket.request(
                "list_objects_v2", f"list {self.uri}", Prefix=self._folder + (self._only or ""), **more
            )
            yield from page.get("Contents", [])
            if not page["IsTruncated"]:
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _versions(self) -> Iterator[dict[str, Any]]:
        """The latest version of each object that is not deleted."""
        more: dict[str, Any] = {}
        while True:
            page = self._bucket.request(
                "list_object_versions", f"list {self.uri}", Prefix=self._folder + (self._only or ""), **more
            )
            yield from (version for version in page.get("Versions", []) if version["IsLatest"])
            if not page["IsTruncated"]:
                return
            more = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}


def _spell(etag: str, version: str | None) -> str:
    located = f"etag:{etag.strip(chr(34))}"
    return f"{located},version:{version}" if version not in (None, "null") else located


def _parse(pin: str) -> Pin:
    etag, _, version = pin.partition(",version:")
    return Pin(etag.removeprefix("etag:"), version or None)
