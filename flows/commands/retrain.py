"""`rcg retrain`."""

from flows.commands.terminal import say


def command() -> None:
    """Make and judge a new model if enough new images came; interrupted, the same command goes on.

    What a schedule runs. On its own branch, in its own folder: files here are not touched until the end.
    """
    from flows.execution.project import Project
    from flows.retrain.lock import open_lock
    from flows.retrain.steps import retrain

    project = Project.here()
    say(retrain(project, open_lock(project)).text)
