"""`rcg repro`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import warn

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


def command(
    context: typer.Context,
    parallel: Annotated[
        bool, typer.Option("--parallel", help="Run stages that do not wait for each other at the same time.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(help="With --parallel: at most so many at once; else one per core, on a cluster all.", min=1),
    ] = None,
) -> None:
    """Run what is out of date, in order: `dvc repro` with the right switches. More arguments go to dvc."""
    from flows.execution.dvc import end_stages, repro
    from flows.execution.foresight import concerns
    from flows.execution.parallel import repro_parallel
    from flows.execution.project import Project
    from flows.executors.sigterm import on_sigterm
    from flows.interrupts import before_end
    from flows.pipeline.plan import check_plan

    stages = check_plan(Path())
    warn(concerns(Project.here()))
    with on_sigterm(end_stages), before_end(end_stages):
        code = repro_parallel(context.args, stages, jobs=jobs) if parallel else repro(context.args)
    raise typer.Exit(code)
