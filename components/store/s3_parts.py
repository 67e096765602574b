"""Large objects in parts: uploaded together or not at all, downloaded from one version of the object only.

obstore uploads in parts too, but a failure may leave parts in the bucket, as its documentation says, and one part that
fails fails the whole. Here each part is repeated for itself, parts of a failed upload are deleted, and an upload that
was completed though the answer got lost is recognized. Each of that has a test.
"""

import base64
import logging
import os
import uuid
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from components.store.s3_clients import WRITER, Control, Objects, Piece, Pin
from components.store.s3_errors import S3Error
from components.store.s3_retry import persist

PART_BYTES = 16 * 2**20
PARTS_AT_ONCE = 4
_MAX_PARTS = 10_000
_ABORT_BUDGET_S = 10.0
_log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


class MultipartUpload:
    """Sends a file in parts, each with its checksum. On any failure the parts are thrown away.

    Raises: S3Error.
    """

    def __init__(self, control: Control, objects: Objects, key: str, budget_s: float) -> None:
        self._control, self._objects, self._key, self._budget_s = control, objects, key, budget_s
        self._writer = uuid.uuid4().hex
        self._id = ""

    def send(self, path: Path, size: int) -> None:
        part_bytes = max(PART_BYTES, -(-size // _MAX_PARTS))
        begun = self._call("create_multipart_upload", ChecksumAlgorithm="CRC32", Metadata={WRITER: self._writer})
        self._id = begun["UploadId"]
        try:
            parts = each(lambda start: self._send_part(path, start, part_bytes), range(0, size, part_bytes))
            self._complete(parts)
        except BaseException:
            self._abort()
            raise

    def _send_part(self, path: Path, start: int, part_bytes: int) -> dict[str, Any]:
        number = start // part_bytes + 1
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(part_bytes)
        # Made here, it goes into a header. boto3's own comes after the body over TLS, which servers refuse or store.
        checksum = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        sent = self._call("upload_part", UploadId=self._id, PartNumber=number, Body=data, ChecksumCRC32=checksum)
        known = {"ChecksumCRC32": sent["ChecksumCRC32"]} if "ChecksumCRC32" in sent else {}
        return {"PartNumber": number, "ETag": sent["ETag"], **known}

    def _complete(self, parts: list[dict[str, Any]]) -> None:
        def attempt(unsure: bool) -> None:
            try:
                self._control.call(
                    "complete_multipart_upload", Key=self._key, UploadId=self._id, MultipartUpload={"Parts": parts}
                )
            except S3Error as failure:
                # The upload is gone once it is complete: an earlier try, whose answer got lost, has done it.
                if not (unsure and failure.code == "NoSuchUpload" and self._objects.head(self._key)[1] == self._writer):
                    raise

        persist(attempt, budget_s=self._budget_s, what=f"finish {self._key}")

    def _abort(self) -> None:
        try:
            persist(
                lambda _: self._control.call("abort_multipart_upload", Key=self._key, UploadId=self._id),
                budget_s=min(self._budget_s, _ABORT_BUDGET_S),
                what=f"discard the parts of {self._key}",
            )
        except S3Error as failure:
            if failure.code != "NoSuchUpload":
                _log.warning("parts of %s stay in the bucket: %s", self._key, failure.detail)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return persist(
            lambda _: self._control.call(method, Key=self._key, **parameters),
            budget_s=self._budget_s,
            what=f"upload {self._key}",
        )


def fetch(objects: Objects, key: str, path: Path, budget_s: float) -> None:
    """Fill `path` with an object. Raises: S3Error, a conflict if the object was replaced meanwhile."""

    def piece(start: int, pin: Pin | None = None) -> Piece:
        stop = start + PART_BYTES
        return persist(lambda _: objects.get(key, start, stop, pin), budget_s=budget_s, what=f"download {key}")

    try:
        first = piece(0)
    except S3Error as failure:
        if not failure.is_beyond_end:
            raise
        first = Piece(b"", 0, "")
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        write_at(descriptor, first.data, 0)
        starts = range(len(first.data), first.size, PART_BYTES)
        each(lambda start: write_at(descriptor, piece(start, Pin(first.etag)).data, start), starts)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """All of data, at offset."""
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done


def each(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """work(item) of all items in order, a few at once; the first failure stops what has not begun."""
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        try:
            return list(pool.map(work, items))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
