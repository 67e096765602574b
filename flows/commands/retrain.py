"""What `rcg retrain` does and prints."""

from flows.execution.project import Project
from flows.retrain.lock import open_lock
from flows.retrain.steps import retrain


def retrain_command() -> str:
    """One retraining, or the rest of one."""
    project = Project.here()
    return retrain(project, open_lock(project)).text
