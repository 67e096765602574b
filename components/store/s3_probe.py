"""Proof that a server honors If-None-Match and If-Match: some ignore them, and two runs would both commit."""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterator

from components.errors import ConfigError, RcgError
from components.store.s3_bucket import Bucket
from components.store.s3_clients import Condition
from components.store.s3_errors import S3Error
from components.store.s3_retry import persist

_FIX = "use a server with conditional writes, or a newer version of this one"
_STALE = hashlib.md5(b"stale", usedforsecurity=False).hexdigest()  # the form of an etag that this object never had


def prove_conditions(bucket: Bucket, folder: str, *, again: bool) -> None:
    """Try real conditional writes below `folder`; a marker there remembers success per endpoint.

    Unless `again`, the marker is believed, and a key that may only read is left in peace: it cannot commit either.
    Raises: ConfigError naming the condition that the server ignores.
    """
    marker = f"{folder}/proved-{hashlib.sha256(bucket.endpoint.encode()).hexdigest()[:12]}.json"
    if not again and _exists(bucket, marker):
        return
    key = f"{folder}/probe-{uuid.uuid4().hex}"
    with bucket.explained("prove that the server honors conditions"):
        try:
            etag = _put(bucket, key, None)
        except S3Error as failure:
            if failure.is_denial and not again:
                return
            raise
        with _deleted(bucket, key):
            _expect_refusal(bucket, key, None, "a second create (If-None-Match: *)")
            _expect_refusal(bucket, key, _STALE, "a stale overwrite (If-Match)")
            _expect_success(bucket, key, etag)
        with _deleted(bucket, f"{key}-absent"):
            _expect_refusal(bucket, f"{key}-absent", _STALE, "an overwrite of nothing (If-Match)")
    bucket.put(marker, json.dumps({"endpoint": bucket.endpoint}).encode(), None, "write to the store")


def _exists(bucket: Bucket, key: str) -> bool:
    try:
        bucket.ask("read the store", lambda objects, _: objects.get(key, 0, None))
    except S3Error:
        return False
    return True


def _put(bucket: Bucket, key: str, if_match: str | None) -> str:
    """Create, or overwrite the object with this etag. Unlike Bucket.put, repeats say what the server said last."""
    writer = uuid.uuid4().hex
    condition = Condition(if_match is None, if_match, writer)
    return persist(
        lambda _: bucket.objects.put(key, writer.encode(), condition),
        budget_s=bucket.patience_s,
        what="write to the store",
    )


def _expect_refusal(bucket: Bucket, key: str, if_match: str | None, name: str) -> None:
    try:
        _put(bucket, key, if_match)
    except S3Error as failure:
        if failure.is_conflict or failure.is_absent:
            return
        raise
    raise ConfigError(
        f"the S3 server let {name} through: two runs could both commit",
        got=f"bucket {bucket.name} at {bucket.endpoint}",
        expected="412 Precondition Failed, or 404 where nothing is",
        fix=_FIX,
    )


def _expect_success(bucket: Bucket, key: str, etag: str) -> None:
    try:
        _put(bucket, key, etag)
    except S3Error as failure:
        if not failure.is_conflict:
            raise
        what = "the S3 server refused an overwrite (If-Match) with the right etag: no lease could be kept"
        raise ConfigError(what, got=f"bucket {bucket.name} at {bucket.endpoint}", fix=_FIX) from failure


@contextlib.contextmanager
def _deleted(bucket: Bucket, key: str) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(S3Error, RcgError):
            bucket.ask("delete the probe", lambda objects, _: objects.delete(key))
