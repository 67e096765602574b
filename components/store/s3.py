"""A bucket, or a folder of one, as a store: conditional puts, checksums, retries, transfers in parts."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from components.errors import ConflictError, MissingError, StoreError
from components.store.base import RESERVED, ObjectInfo, check_key, receiving
from components.store.s3_bucket import PATIENCE_S, Bucket, split_uri
from components.store.s3_clients import Condition
from components.store.s3_errors import S3Error
from components.store.s3_parts import PART_BYTES, MultipartUpload, fetch
from components.store.s3_probe import prove_conditions

_N_DOWNLOADS = 3


class S3Store:
    """A store at s3://bucket/prefix. Endpoint, region and credentials come from the usual AWS variables and files.

    A conditional put carries its writer's mark: if its answer was lost and the second try is refused, the mark tells
    whether the object there is ours. The etag is the server's, of the content: rewriting the very same bytes can bring
    it back, so what is swapped by `if_match` must never repeat (a lease counts its beats).
    The handle can be pickled. `patience_s`: how long a request is repeated while the server does not answer.
    """

    def __init__(self, uri: str, *, patience_s: float = PATIENCE_S) -> None:
        name, self._root = split_uri(uri)
        self._bucket = Bucket(name, patience_s)

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.uri, self._bucket.patience_s)

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket.name}/{self._root}".rstrip("/")

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        full = self._full(key)
        if stop is not None and stop <= start:
            if self.head(key) is None:
                self._missing(key)
            return b""
        try:
            return self._bucket.ask(f"read {key}", lambda objects, _: objects.get(full, start, stop)).data
        except S3Error as failure:
            if failure.is_beyond_end:
                return b""
            self._missing(key)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if if_absent and if_match is not None:
            raise ValueError("if_absent and if_match exclude each other")
        full, condition = self._full(key), None
        if if_absent or if_match is not None:
            condition = Condition(if_absent, if_match, uuid.uuid4().hex)
        try:
            return self._bucket.put(full, data, condition, f"write {key}")
        except S3Error as failure:
            what = f"{key} exists already" if if_absent else f"{key} changed since it was read"
            raise ConflictError(what) from failure

    def head(self, key: str) -> ObjectInfo | None:
        full = self._full(key)
        try:
            info, _ = self._bucket.ask(f"read {key}", lambda objects, _: objects.head(full))
        except S3Error:
            return None
        return ObjectInfo(key, info.size, info.etag)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        below = prefix.rstrip("/")
        folder = self._full(below) if below else self._root
        skip = len(self._root) + 1 if self._root else 0
        for info in self._bucket.list(f"{folder}/" if folder else "", f"list {prefix or self.uri}"):
            key = info.key[skip:]
            if not key.startswith(f"{RESERVED}/"):
                yield ObjectInfo(key, info.size, info.etag)

    def upload(self, key: str, path: Path) -> None:
        full, what = self._full(key), f"upload {key}"
        if not path.is_file():
            raise MissingError(f"cannot store {key}: the file to upload is not there", got=str(path))
        size = path.stat().st_size
        if size <= PART_BYTES:
            self._bucket.put(full, path.read_bytes(), None, what)
            return
        with self._bucket.explained(what):
            upload = MultipartUpload(self._bucket.control, self._bucket.objects, full, self._bucket.patience_s)
            upload.send(path, size)

    def download(self, key: str, path: Path) -> None:
        """Copy the object to `path`, which appears only when complete."""
        full = self._full(key)
        with receiving(path) as temporary:
            self._fetch(full, key, temporary)

    def delete(self, key: str) -> None:
        full = self._full(key)
        with contextlib.suppress(S3Error):  # absent is fine
            self._bucket.ask(f"delete {key}", lambda objects, _: objects.delete(full))

    def local_path(self, key: str) -> None:
        check_key(key)

    def prove(self, *, again: bool = False) -> None:
        """Make sure that the server honors conditional writes; see prove_conditions(). Raises: ConfigError."""
        prove_conditions(self._bucket, f"{self._root}/{RESERVED}".lstrip("/"), again=again)

    def _full(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}" if self._root else check_key(key)

    def _fetch(self, full: str, key: str, path: Path) -> None:
        for _ in range(_N_DOWNLOADS):
            path.unlink(missing_ok=True)
            try:
                with self._bucket.explained(f"download {key}"):
                    return fetch(self._bucket.objects, full, path, self._bucket.patience_s)
            except S3Error as failure:
                if failure.is_absent:
                    self._missing(key)
        raise StoreError(f"{key} is replaced again and again while it is read", got=self.uri, fix="run it again later")

    def _missing(self, key: str) -> NoReturn:
        raise MissingError(
            f"{key} is not in the store", got=self.uri, fix="check RCG_STORE, or: rcg data copy --from …"
        )


def _reopen(uri: str, patience_s: float) -> S3Store:
    return S3Store(uri, patience_s=patience_s)
