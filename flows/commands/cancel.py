"""`rcg cancel`."""

from typing import Annotated

import typer

from flows.commands.terminal import say_lines


def command(
    stage: Annotated[str | None, typer.Argument(metavar="STAGE", help="One stage; all when left out.")] = None,
) -> None:
    """End the RayJobs that are at work on a stage; the command for the stage goes on from its checkpoint later."""
    from flows.execution.cluster import cancel_jobs
    from flows.execution.project import Project

    project = Project.here()
    lines = cancel_jobs(project, stage)
    nothing = f"no RayJob is at work on {stage or 'any stage'} in {project.settings.cluster.kube_namespace}"
    say_lines(lines or [nothing])
