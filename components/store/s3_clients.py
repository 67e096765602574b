"""The two clients of one bucket: obstore for objects, boto3 for the rest.

boto3 resolves endpoint, region and credentials for both, by the usual AWS variables and files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConfigError
from components.store.base import ObjectInfo
from components.store.s3_errors import S3Error, from_boto, from_obstore

if TYPE_CHECKING:
    from obstore import GetOptions, PutMode

WRITER = "rcg-writer"
"""Metadata of a conditional write: tells our own object from another writer's when an answer got lost."""
_CONNECT_S, _READ_S, _REQUEST_S = 5, 30, 300
_PAGE = 1000


@dataclass(frozen=True)
class Piece:
    """Bytes of an object, and what the object was as a whole when they were read."""

    data: bytes
    size: int
    etag: str


@dataclass(frozen=True)
class Pin:
    """The very object that is meant: by its version if there is one, else by its etag."""

    etag: str
    version: str | None = None


@dataclass(frozen=True)
class Condition:
    """What must hold for a put: nothing there, or this etag."""

    if_absent: bool
    if_match: str | None
    writer: str


class Control:
    """boto3's client for one bucket in one process."""

    def __init__(self, bucket: str) -> None:
        import boto3
        from botocore.config import Config

        self.bucket = bucket
        self.session = boto3.Session()
        timeouts = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S}
        once = {"total_max_attempts": 1}
        try:
            self.client = self.session.client("s3", config=Config(retries=once, max_pool_connections=64, **timeouts))
        except Exception as error:
            raise from_boto(error) from error

    @property
    def endpoint(self) -> str:
        return str(self.client.meta.endpoint_url)

    def trusted(self) -> bytes | None:
        """PEM certificates beside the system's: AWS_CA_BUNDLE, or ca_bundle of ~/.aws/config. Raises: ConfigError."""
        path = self.session._session.get_config_variable("ca_bundle")
        if not path:
            return None
        try:
            return Path(path).read_bytes()
        except OSError as error:
            what = "the certificates of who signs for the S3 server cannot be read"
            raise ConfigError(what, got=f"{path}: {error.strerror}", fix="correct AWS_CA_BUNDLE") from error

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One request about the bucket. Raises: S3Error."""
        try:
            answer: dict[str, Any] = getattr(self.client, method)(Bucket=self.bucket, **parameters)
        except Exception as error:
            raise from_boto(error) from error
        return answer


class Objects:
    """One request each, by full key, through obstore. Every method raises S3Error and tries once.

    Every body is sent with its SHA-256, which the server checks. Etags come without quotes.
    """

    def __init__(self, control: Control) -> None:
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        endpoint, region = control.endpoint, control.client.meta.region_name
        if control.session.get_credentials() is None:
            raise S3Error(None, "NoCredentials", "neither in the environment nor in ~/.aws")
        trusted = control.trusted()
        self._bucket = S3Store(
            control.bucket,
            config={
                "endpoint": endpoint,
                "region": "us-east-1" if region in (None, "aws-global") else region,
                "checksum_algorithm": "SHA256",
            },
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=_CONNECT_S),
                "read_timeout": timedelta(seconds=_READ_S),
                "timeout": timedelta(seconds=_REQUEST_S),
                **({} if trusted is None else {"root_certificate": trusted}),
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0), "backoff": {}},
            credential_provider=Boto3CredentialProvider(control.session),
        )

    def get(self, key: str, start: int, stop: int | None, pin: Pin | None = None) -> Piece:
        options: GetOptions = {}
        if stop is not None:
            options["range"] = (start, stop)
        elif start:
            options["range"] = {"offset": start}
        if pin is not None and pin.version:
            options["version"] = pin.version
        elif pin is not None:
            options["if_match"] = f'"{pin.etag}"'
        try:
            found = self._bucket.get(key, options=options)
            return Piece(bytes(found.bytes()), found.meta["size"], _bare(found.meta["e_tag"]))
        except Exception as error:
            raise from_obstore(error) from error

    def put(self, key: str, data: bytes, condition: Condition | None) -> str:
        mode: PutMode = "overwrite"
        attributes = {}
        if condition is not None:
            attributes[WRITER] = condition.writer
            mode = "create" if condition.if_absent else {"e_tag": f'"{condition.if_match}"'}
        try:
            done = self._bucket.put(key, data, mode=mode, use_multipart=False, attributes=attributes)
        except Exception as error:
            raise from_obstore(error) from error
        return _bare(done["e_tag"])

    def head(self, key: str) -> tuple[ObjectInfo, str | None]:
        """With the WRITER of its conditional write."""
        try:
            found = self._bucket.get(key, options={"head": True})
        except Exception as error:
            raise from_obstore(error) from error
        info = ObjectInfo(key, found.meta["size"], _bare(found.meta["e_tag"]))
        return info, {str(k): str(v) for k, v in found.attributes.items()}.get(WRITER)

    def list(self, prefix: str, after: str | None) -> Iterator[Sequence[ObjectInfo]]:
        """Pages below `prefix`, which ends with a slash or is empty."""
        try:
            for page in self._bucket.list(prefix or None, offset=after, chunk_size=_PAGE):
                yield [ObjectInfo(found["path"], found["size"], _bare(found["e_tag"])) for found in page]
        except Exception as error:
            raise from_obstore(error) from error

    def delete(self, key: str) -> None:
        try:
            self._bucket.delete(key)
        except FileNotFoundError:
            return
        except Exception as error:
            raise from_obstore(error) from error


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')
