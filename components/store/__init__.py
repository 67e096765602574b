"""Where bytes are kept: open_store() turns a URI into a Store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.errors import ConfigError
from components.store.base import ObjectInfo, Prefix, Store
from components.store.local import LocalStore

__all__ = ["LocalStore", "ObjectInfo", "Prefix", "Store", "open_store", "prove_store"]


def open_store(uri: str | Path, *, patience_s: float | None = None) -> Store:
    """The store behind an `s3://` or `file://` URI or a plain path. Nothing is created or read yet.

    patience_s: how long a remote store is asked again while it does not answer; None for its own measure.
    Raises: ConfigError for a scheme without a store, or a malformed address.
    """
    text = str(uri)
    scheme, separator, _ = text.partition("://")
    if not text:
        raise ConfigError(
            "the store has no address", fix="set RCG_STORE to a folder, a file:// URI or s3://bucket/prefix"
        )
    if not separator:
        check_slashes(text)
        return LocalStore(text)
    if scheme == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ConfigError(
                "a file:// store needs an absolute path",
                got=text,
                expected="file:///folder (three slashes) or a plain path",
            )
        return LocalStore(unquote(parts.path))
    if scheme == "s3":
        from components.store.s3 import S3Store

        return S3Store(text) if patience_s is None else S3Store(text, patience_s=patience_s)
    raise ConfigError("no store for this address", got=text, expected="s3://bucket/prefix, file:///folder or a path")


def check_slashes(address: str) -> None:
    """Raises: ConfigError for a URI that lost a slash and would name a folder."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme.lower() in ("s3", "file", "gs", "http", "https") and not rest.startswith("//"):
        raise ConfigError(
            "this address lacks a slash",
            got=address,
            expected=f"{scheme.lower()}://{rest.lstrip('/')}",
            fix=f"write ./{address} if it is a folder",
        )


def prove_store(store: Store, *, again: bool = False) -> None:
    """Make sure that the store's server honors conditional writes, which commits and leases rest on.

    A server that passed is asked no more, except `again`; a folder has none. Raises: ConfigError.
    """
    if store.uri.startswith("s3://"):
        from components.store.s3 import S3Store

        if isinstance(store, S3Store):
            store.prove(again=again)
