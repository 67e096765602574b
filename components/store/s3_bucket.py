"""One bucket: requests by full key, repeated while that may help, with failures that settings mend explained."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from components.errors import ConfigError
from components.store.base import ObjectInfo
from components.store.s3_clients import Condition, Control, Objects
from components.store.s3_errors import S3Error, explain
from components.store.s3_retry import persist

PATIENCE_S = 90.0
"""How long a request is repeated while the server does not answer."""
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
T = TypeVar("T")


def split_uri(uri: str) -> tuple[str, str]:
    """(bucket, prefix without slashes at its ends) of an s3:// URI. Raises: ConfigError."""
    name, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    parts = prefix.split("/") if prefix else []
    if not _NAME.fullmatch(name) or any(part in ("", ".", "..") for part in parts) or not prefix.isprintable():
        raise ConfigError("not the address of a bucket", got=uri, expected="s3://bucket or s3://bucket/prefix")
    return name, prefix


class Bucket:
    """Clients are made when first needed. A process that used them must not fork: obstore's threads stay behind."""

    def __init__(self, name: str, patience_s: float) -> None:
        self.name, self.patience_s = name, patience_s
        self._clients: tuple[Control, Objects] | None = None

    @property
    def control(self) -> Control:
        return self._connect()[0]

    @property
    def objects(self) -> Objects:
        return self._connect()[1]

    @property
    def endpoint(self) -> str:
        """URL of the server."""
        return self.control.endpoint

    def ask(self, what: str, request: Callable[[Objects, bool], T]) -> T:
        """request(objects, unsure), repeated; see persist().

        Raises: S3Error for an absent key, a failed condition or a range beyond the end; ConfigError or StoreError for
        the rest.
        """
        with self.explained(what):
            return persist(lambda unsure: request(self.objects, unsure), budget_s=self.patience_s, what=what)

    def request(self, method: str, what: str, **parameters: Any) -> dict[str, Any]:
        """A request about the bucket, repeated; otherwise as ask()."""
        return self.ask(what, lambda _objects, _unsure: self.control.call(method, **parameters))

    @contextlib.contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Turn failures that are no answers into errors for a person."""
        try:
            yield
        except S3Error as failure:
            if failure.is_absent or failure.is_conflict or failure.is_beyond_end:
                raise
            named = self._name(failure) if failure.is_unnamed else failure
            raise explain(named, what, f"bucket {self.name} at {self.endpoint}") from failure

    def put(self, key: str, data: bytes, condition: Condition | None, what: str) -> str:
        """The new etag. Raises: S3Error when the condition does not hold and the object there is not our own."""

        def attempt(objects: Objects, unsure: bool) -> str:
            try:
                return objects.put(key, data, condition)
            except S3Error as failure:
                if condition and condition.if_match and failure.is_absent:  # some servers say so, others 412
                    failure = S3Error(412, failure.code, failure.detail)
                if not (unsure and condition and failure.is_conflict):
                    raise failure from None
                info, writer = objects.head(key)
                if writer != condition.writer:
                    raise
                return info.etag

        return self.ask(what, attempt)

    def list(self, prefix: str, what: str) -> Iterator[ObjectInfo]:
        """Everything below `prefix` ("" or with a slash at its end) in key order, page by page."""
        after: str | None = None
        pages: Iterator[Sequence[ObjectInfo]] | None = None

        def next_page(objects: Objects, _: bool) -> Sequence[ObjectInfo] | None:
            nonlocal pages
            try:
                pages = objects.list(prefix, after) if pages is None else pages
                return next(pages, None)
            except S3Error:
                pages = None  # asked again, the listing goes on after the last key seen
                raise

        while (page := self.ask(what, next_page)) is not None:
            yield from page
            after = page[-1].key if page else after

    def _name(self, failure: S3Error) -> S3Error:
        """The reason that the answer to a HEAD could not tell, from another request."""
        try:
            next(self.objects.list("", None), None)
        except S3Error as named:
            return named
        return failure

    def _connect(self) -> tuple[Control, Objects]:
        if self._clients is None:
            try:
                control = Control(self.name)
                self._clients = control, Objects(control)
            except S3Error as failure:
                raise explain(failure, "open the bucket", f"bucket {self.name}") from failure
        return self._clients
