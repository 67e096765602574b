"""`rcg snapshot`."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.terminal import say, warn

if TYPE_CHECKING:
    from flows.execution.project import Project


def command(
    source: Annotated[
        str | None,
        typer.Argument(
            help="`demo`, `handwriting`, a folder of pictures, s3://bucket/prefix, or a .tar, .zip or .parquet "
            "file or a folder of them; remembered for this checkout."
        ),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option(help="Start the list over: for a source whose old pictures changed.")
    ] = False,
    shrink: Annotated[
        bool, typer.Option(help="With --rebuild: it is meant that more than half of the pictures are gone.")
    ] = False,
    follow_links: Annotated[
        bool | None,
        typer.Option(
            "--follow-links/--no-follow-links",
            help="Links of the folder may lead to folders and out of it; collection.lock remembers it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the pictures of SOURCE in collection.lock, which belongs into git."""
    from flows.execution.foresight import concerns
    from flows.execution.project import Project

    project = Project.here()
    say(snapshot(project, source, rebuild=rebuild, shrink=shrink, follows_links=follow_links))
    warn(concerns(project, remote=True))


def snapshot(
    project: "Project",
    source: str | None,
    *,
    rebuild: bool,
    shrink: bool = False,
    follows_links: bool | None = None,
) -> str:
    """Bring collection.lock up to date with the source, and remember the source; returns the lines to print.

    Raises: ConfigError for an unusable source, DataError for one that lost or changed pictures; a rebuild raises it
    for a source that lost more than half of them, unless it may `shrink`.
    """
    from components.collection.lock import read_lock
    from components.collection.metadata import astray
    from components.collection.packaged import PACKAGED
    from components.collection.snapshot import take_snapshot
    from components.collection.source import open_source
    from components.errors import ConfigError
    from flows.execution.merging import joined_lock
    from flows.identity.fingerprint import LOCK
    from flows.settings import checked_source, remember_source

    uri = checked_source(source or project.settings.source)
    if rebuild and not shrink and uri == project.settings.source:
        _refuse_collapse(project, uri)
    opened = open_source(uri)
    if follows_links and (uri in PACKAGED or uri.startswith("s3://")):
        raise ConfigError("only a folder has links to follow", got=f"--follow-links with {uri}", fix="leave it out")
    with nullcontext() if rebuild else joined_lock(project.root, follows_links) as before:
        found = take_snapshot(opened, project.root / LOCK, rebuild=rebuild, follows_links=follows_links, before=before)
    if source is not None:
        remember_source(project.root, uri)
    left_out = f", {found.left_out} left out" if found.left_out.n else ""
    what = f"{found.n_new} new" if found.changed else "no change"
    line = f"{LOCK}: {found.n_images} pictures in {found.n_chunks} chunk(s), {what}{left_out} · source {uri}"
    if before is not None:
        line += f"\nwhat both branches of the merge list is joined; go on with `git add {LOCK}`"
    lost = astray(opened, read_lock(project.root / LOCK))
    return line if lost is None else f"{line}\nwarning: {lost}"


def _refuse_collapse(project: "Project", uri: str) -> None:
    """Raises: DataError for a source with less than half of the listed pictures: most likely it is half mounted."""
    from components.collection.lock import read_lock
    from components.collection.source import open_source
    from components.errors import DataError, RcgError
    from flows.identity.fingerprint import LOCK

    try:
        before = read_lock(project.root / LOCK)
    except RcgError:  # absent or damaged: there is nothing to compare with
        return
    now = sum(not item.is_metadata for item in open_source(uri, follows_links=before.follows_links).list())
    if now < before.count / 2:
        raise DataError(
            "the source has lost more than half of its pictures",
            got=f"{now} in {uri}",
            expected=f"{before.count}, as collection.lock lists",
            fix="is all of it mounted? If it is meant: rcg snapshot --rebuild --shrink",
        )
