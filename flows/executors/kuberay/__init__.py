"""The executor `kuberay`: every stage is a RayJob whose pods run `rcg job <spec uri>` under the executor ray.

cluster     what is asked of Kubernetes
api         the real one
manifest    the RayJob of one attempt
failures    what its status and its pods say
patience    servers that do not answer
follow      watching one job
launch      attach, create, follow, judge, try again
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from flows.executors.kuberay.cluster import Cluster, missing_rights
from flows.executors.kuberay.follow import Pace
from flows.executors.kuberay.launch import KubeRay, cancel, ended_jobs, live_jobs
from flows.settings import ClusterSettings, Settings

__all__ = ["KubeRay", "cancel", "ended_jobs", "live_jobs", "missing_rights", "open_cluster", "open_kuberay"]


@lru_cache(maxsize=1)
def _connected(namespace: str, context: str | None) -> Cluster:
    from flows.executors.kuberay.api import KubeApi

    return KubeApi(namespace, context)


def open_cluster(settings: ClusterSettings) -> Cluster:
    """The namespace that settings name. Raises: ConfigError without access to a cluster."""
    return _connected(settings.kube_namespace, settings.kube_context)


def open_kuberay(settings: Settings, root: Path, say: Callable[[str], None]) -> KubeRay:
    return KubeRay(lambda: open_cluster(settings.cluster), settings, root, say, Pace())
