"""What the commands do with the cluster beside running stages: cancel, sweep, look."""

from datetime import UTC, datetime, timedelta

from components.errors import ConfigError
from flows.execution.project import Project
from flows.executors.kuberay import cancel, ended_jobs, live_jobs, missing_rights, open_cluster
from flows.pipeline.table import KINDS, check_name


def cancel_jobs(project: Project, name: str | None) -> list[str]:
    """Delete the RayJobs that are at work on a stage, or on any; what they saved stays in the store.

    Returns a line about each. Raises: ConfigError where stages do not run on a cluster.
    """
    if project.settings.executor != "kuberay":
        got = f"RCG_EXECUTOR={project.settings.executor}"
        raise ConfigError("only stages on a cluster can be canceled from here", got=got, fix="set RCG_EXECUTOR=kuberay")
    stages = [check_name(name)] if name else list(KINDS)
    return cancel(open_cluster(project.settings.cluster), project.store, stages)


def sweep_jobs(project: Project, *, days: float, delete: bool) -> int:
    """Number of this store's RayJobs that ended more than so many days ago; `delete` deletes them."""
    cluster = open_cluster(project.settings.cluster)
    found = ended_jobs(cluster, project.store, datetime.now(UTC) - timedelta(days=days))
    for job in found if delete else ():
        cluster.delete_job(job["metadata"]["name"], job["metadata"]["uid"])
    return len(found)


def jobs_text(project: Project) -> str:
    """The RayJobs at work on this store, one per line."""
    found = live_jobs(open_cluster(project.settings.cluster), project.store)
    return "\n".join(f"{name} ({status or 'new'})" for name, status in found) or "none"


def cluster_text(project: Project) -> str:
    """Where the cluster is, after access was tried. Raises: ConfigError naming the right that the account lacks."""
    settings = project.settings.cluster
    cluster = open_cluster(settings)
    lacking = missing_rights(cluster)
    if lacking:
        raise ConfigError(
            f"the account lacks rights in namespace {settings.kube_namespace}",
            got=", ".join(lacking),
            fix="bind it to the Role of k8s/base/rbac.yaml",
        )
    live_jobs(cluster, project.store)
    return f"namespace {settings.kube_namespace} of {cluster.server}, image {settings.image or 'not set'}"
