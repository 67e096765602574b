"""What `rcg retrain` does and prints."""

from flows.driver import Project
from flows.gate.champion import who
from flows.process import Process
from flows.retrain.lock import RunLock, StoreLock
from flows.retrain.steps import retrain


def retrain_command() -> str:
    """One retraining, or the rest of one."""
    project = Project.here()
    return retrain(project, _lock(project)).text


def _lock(project: Project) -> RunLock:
    settings = project.settings
    if settings.lease_namespace is None:
        return StoreLock(project.store)
    from flows.executors.kuberay.api import KubeApi
    from flows.executors.kuberay.lease import KubeLease

    return KubeLease(KubeApi(settings.lease_namespace, settings.kube_context), f"{who()} {Process.current()}")
