"""`rcg snapshot`."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.terminal import say

if TYPE_CHECKING:
    from flows.execution.project import Project


def command(
    source: Annotated[
        str | None, typer.Argument(help="`demo` or a folder of pictures; remembered for this checkout.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option(help="Start the list over: for a source whose old pictures changed.")
    ] = False,
    shrink: Annotated[
        bool, typer.Option(help="With --rebuild: it is meant that more than half of the pictures are gone.")
    ] = False,
) -> None:
    """List the pictures of SOURCE in collection.lock, which belongs into git."""
    from flows.execution.project import Project

    say(snapshot(Project.here(), source, rebuild=rebuild, shrink=shrink))


def snapshot(project: "Project", source: str | None, *, rebuild: bool, shrink: bool = False) -> str:
    """Bring collection.lock up to date with the source, and remember the source; returns the line to print.

    Raises: ConfigError for an unusable source, DataError for one that lost or changed pictures; a rebuild raises it
    for a source that lost more than half of them, unless it may `shrink`.
    """
    from components.collection.snapshot import take_snapshot
    from components.collection.source import open_source
    from flows.identity.fingerprint import LOCK
    from flows.settings import checked_source, remember_source

    uri = checked_source(source or project.settings.source)
    if rebuild and not shrink and uri == project.settings.source:
        _refuse_collapse(project, uri)
    found = take_snapshot(open_source(uri), project.root / LOCK, rebuild=rebuild)
    if source is not None:
        remember_source(project.root, uri)
    ignored = f", {found.n_ignored} other files ignored" if found.n_ignored else ""
    what = f"{found.n_new} new" if found.changed else "no change"
    return f"{LOCK}: {found.n_images} pictures in {found.n_chunks} chunk(s), {what}{ignored} · source {uri}"


def _refuse_collapse(project: "Project", uri: str) -> None:
    """Raises: DataError for a source with less than half of the listed pictures: most likely it is half mounted."""
    from components.collection.lock import read_lock
    from components.collection.source import open_source
    from components.errors import DataError, RcgError
    from flows.identity.fingerprint import LOCK

    try:
        before = read_lock(project.root / LOCK).count
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
