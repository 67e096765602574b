"""`rcg status`."""

import typer


def command() -> None:
    """One screen: the stages, the collection, the store and the registry."""
    from flows.execution.project import Project
    from flows.execution.status import status_text

    typer.echo(status_text(Project.here()))
