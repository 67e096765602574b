"""`rcg snapshot`: which source this checkout lists, and what changed."""

from pathlib import Path

from components.errors import ConfigError
from flows.fingerprint import LOCK
from flows.settings import load_settings, remember_source


def take_snapshot(source: str | None, *, rebuild: bool) -> str:
    """Bring collection.lock up to date with the source and remember the source; returns what to print.

    Raises: ConfigError for an unusable source, DataError for one that lost or changed pictures.
    """
    from components.data.snapshot import take_snapshot as take
    from components.data.source import open_source

    uri = source or load_settings().source
    if uri != "demo" and "://" not in uri:
        folder = Path(uri).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigError("the source is neither `demo` nor a folder", got=uri, expected="a folder of pictures")
        uri = str(folder)
    found = take(open_source(uri), Path(LOCK), rebuild=rebuild)
    if source is not None:
        remember_source(uri)
    ignored = f", {found.n_ignored} other files ignored" if found.n_ignored else ""
    what = f"{found.n_new} new" if found.changed else "no change"
    return f"{LOCK}: {found.n_images} pictures in {found.n_chunks} chunk(s), {what}{ignored} · source {uri}"
