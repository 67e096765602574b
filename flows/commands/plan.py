"""`rcg plan`."""

from typing import Annotated

import typer

from flows.commands.terminal import say_lines


def command(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit with 2 when dvc.yaml is stale.")] = False,
) -> None:
    """Write dvc.yaml, which follows from params.yaml and the code, and say what changed in it."""
    from flows.execution.project import Project
    from flows.pipeline.plan import FILE, check_plan, write_plan

    root, changes = Project.here().root, []
    if check:
        check_plan(root)
    else:
        changes = write_plan(root)
    lines = [f"{FILE} is written anew; commit it", *changes] if changes else [f"{FILE} is up to date"]
    say_lines(lines)
