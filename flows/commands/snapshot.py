"""`rcg snapshot`: which source this checkout lists, and what changed."""

from pathlib import Path

from components.errors import ConfigError, DataError, RcgError
from flows.identity.fingerprint import LOCK
from flows.settings import load_settings, remember_source


def take_snapshot(source: str | None, *, rebuild: bool, shrink: bool = False) -> str:
    """Bring collection.lock up to date with the source and remember the source; returns what to print.

    Raises: ConfigError for an unusable source, DataError for one that lost or changed pictures; in a rebuild for one
    that lost more than half of them, unless it may `shrink`.
    """
    from components.collection.snapshot import take_snapshot as take
    from components.collection.source import open_source

    uri = source or load_settings().source
    if uri != "demo" and "://" not in uri:
        folder = Path(uri).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigError("the source is neither `demo` nor a folder", got=uri, expected="a folder of pictures")
        uri = str(folder)
    if rebuild and not shrink and uri == load_settings().source:
        _refuse_collapse(uri)
    found = take(open_source(uri), Path(LOCK), rebuild=rebuild)
    if source is not None:
        remember_source(uri)
    ignored = f", {found.n_ignored} other files ignored" if found.n_ignored else ""
    what = f"{found.n_new} new" if found.changed else "no change"
    return f"{LOCK}: {found.n_images} pictures in {found.n_chunks} chunk(s), {what}{ignored} · source {uri}"


def _refuse_collapse(uri: str) -> None:
    """A source that is half empty is more often half mounted."""
    from components.collection.lock import read_lock
    from components.collection.source import open_source

    try:
        before = read_lock(Path(LOCK)).count
    except RcgError:  # absent or damaged: there is nothing to compare with
        return
    now = sum(not item.is_metadata for item in open_source(uri).list())
    if now < before / 2:
        raise DataError(
            "the source has lost more than half of its pictures",
            got=f"{now} in {uri}",
            expected=f"{before}, as collection.lock lists",
            fix="is all of it mounted? If it is meant: rcg snapshot --rebuild --shrink",
        )
