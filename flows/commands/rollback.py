"""`rcg rollback`."""

from typing import Annotated

import typer

from flows.commands.terminal import say


def command(
    to: Annotated[int | None, typer.Option(help="Version to go back to; the one before when left out.", min=1)] = None,
) -> None:
    """Make the champion before this one the champion again; twice goes back two."""
    from flows.execution.project import Project
    from flows.gate.rollback import rollback

    project = Project.here()
    target, left = rollback(project, to)
    before = "none" if left is None else f"version {left.number}"
    say(f"the champion of {project.settings.tracking.model_name} is version {target.number} again (was {before})")
