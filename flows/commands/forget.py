"""`rcg forget`."""

from typing import Annotated

import typer

from flows.commands.terminal import say


def command(
    image: Annotated[str, typer.Argument(help="Its name in the source, its sha256, or a file with its bytes.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be erased, and erase nothing.")] = False,
) -> None:
    """Erase what was made of one picture everywhere in the store, and list the models that were trained on it."""
    from flows.execution.project import Project
    from flows.lineage.erasure import forget

    found = forget(Project.here(), image, dry_run=dry_run)
    say(f"{', '.join(found.names)} is listed by {found.n_collections} collection(s)")
    say(
        f"{len(found.keys)} object(s) of {found.n_runs} run(s) {'would be' if dry_run else 'are'} erased\n"
        f"models trained on it: {', '.join(found.models) or 'none'}; their weights stay\n"
        "not touched: artifacts/ of checkouts, the DVC cache and its remotes, pictures in MLflow"
    )
