"""`rcg status`."""

from flows.commands.terminal import say


def command() -> None:
    """One screen: the stages, the collection, the store and the registry."""
    from flows.execution.project import Project
    from flows.execution.status import status_text

    say(status_text(Project.here()))
