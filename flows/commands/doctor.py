"""`rcg doctor`."""

import typer

from flows.commands.terminal import say


def command() -> None:
    """Check Python, store, MLflow, source and device, and say what to fix."""
    from components.errors import RcgError
    from flows.execution.doctor import examine
    from flows.execution.project import Project

    healthy = True
    for name, found in examine(Project.here()):
        if isinstance(found, RcgError):
            healthy = False
            say(f"FIX   {name:<11}{str(found).replace(chr(10), chr(10) + ' ' * 17)}")
        else:
            say(f"ok    {name:<11}{found}")
    raise typer.Exit(0 if healthy else 2)
