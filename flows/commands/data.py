"""`rcg data copy` and `rcg data pull`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import StageName, say

app = typer.Typer(help="Fetch or move the bytes that artifacts stand for.", no_args_is_help=True)


@app.command()
def copy(
    source: Annotated[str, typer.Option("--from", help="Store that has the bytes.")],
    stages: Annotated[list[str] | None, typer.Argument(help="Stages; all with a manifest when left out.")] = None,
) -> None:
    """Copy runs that this checkout's manifests name from another store into this one."""
    from components.errors import MissingError
    from components.store import open_store
    from flows.execution.project import Project
    from flows.pipeline.table import KINDS, check_name
    from flows.runs.transfer import data_copy

    project = Project.here()
    wanted = [check_name(name) for name in stages or KINDS]
    pointers = {stage: project.workspace.pointer(stage) for stage in wanted}
    absent = [stage for stage in stages or () if pointers[stage] is None]
    if absent:
        raise MissingError(f"this checkout has no artifacts/{absent[0]}", fix="`dvc pull` or `dvc checkout` it first")
    runs = {pointer.prefix: pointer.digest for pointer in pointers.values() if pointer is not None}
    if not runs:
        raise MissingError("this checkout has no artifacts at all", fix="`dvc pull`, or run the stages: `rcg repro`")
    copied = data_copy(open_store(source), project.store, runs)
    say(f"copied {len(copied)} run(s) to {project.store.uri}, {len(runs) - len(copied)} were there")


@app.command()
def pull(
    stage: StageName, to: Annotated[Path | None, typer.Option(help="Folder; data/<stage> when left out.")] = None
) -> None:
    """Fetch every file of a stage's artifact into a folder."""
    from flows.execution.project import Project
    from flows.runs.transfer import pull as pull_files

    project, folder = Project.here(), to or Path("data") / stage
    paths = pull_files(project.store, project.committed(stage), folder)
    say(f"{len(paths)} file(s) of {stage} in {folder}")
