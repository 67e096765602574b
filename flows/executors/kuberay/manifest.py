"""The RayJob of one attempt at a stage: its name, and k8s/base/rayjob.yaml with typed fields set. Pure functions."""

import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import ConfigError
from flows.executors.kuberay.cluster import Object
from flows.runs.records import Spec
from flows.settings import ClusterSettings, Settings
from flows.yaml_files import read_yaml

TEMPLATE = Path(__file__).parents[3] / "k8s" / "base" / "rayjob.yaml"
STAGE, FINGERPRINT, STORE = "rcg/stage", "rcg/fingerprint", "rcg/store"
"""Labels; the annotation of the same name has the whole value."""
SPEC = "rcg/spec"
_LABEL_CHARS = 63


@dataclass(frozen=True)
class Order:
    """What is asked of the cluster: a spec in a store, by which attempt."""

    spec: Spec
    store_uri: str
    attempt: int

    @property
    def name(self) -> str:
        """At most 47 characters, the operator's limit."""
        spec = self.spec
        return f"rcg-{spec.stage}-{spec.fingerprint[:10]}-{store_key(self.store_uri)}-a{self.attempt}"

    @property
    def spec_uri(self) -> str:
        return f"{self.store_uri.rstrip('/')}/{self.spec.prefix}/spec.json"

    @property
    def labels(self) -> dict[str, str]:
        """What all attempts at this run in this store have in common."""
        return {
            STAGE: self.spec.stage,
            FINGERPRINT: self.spec.fingerprint[:_LABEL_CHARS],
            STORE: store_key(self.store_uri),
        }

    @property
    def annotations(self) -> dict[str, str]:
        return {FINGERPRINT: self.spec.fingerprint, SPEC: self.spec_uri}


def store_key(store_uri: str) -> str:
    """Four characters for a store: two stores may hold the same fingerprint."""
    return hashlib.sha256(store_uri.rstrip("/").encode()).hexdigest()[:4]


def attempt_of(name: str) -> int:
    """The number in a job's name; 0 for a name that is not ours."""
    match = re.search(r"-a(\d+)$", name)
    return int(match[1]) if match else 0


def is_same_work(job: Object, order: Order) -> bool:
    """Names hold the first characters of digests only; this compares all of them."""
    found = job["metadata"].get("annotations") or {}
    return all(found.get(key) == value for key, value in order.annotations.items())


def read_template(path: Path | None) -> Object:
    """Raises: ConfigError for a file that is no RayJob."""
    path = path or TEMPLATE
    template = read_yaml(path, fix="unset or mend RCG_RAYJOB_TEMPLATE")
    kind = template.get("kind") if isinstance(template, dict) else None
    if kind != "RayJob":
        raise ConfigError("the template is no RayJob", got=f"{path}: kind {kind}", fix="see k8s/base/rayjob.yaml")
    return dict(template)


def build(template: Object, order: Order, settings: Settings) -> Object:
    """The manifest to create.

    Raises: ConfigError naming the field that the template lacks.
    """
    job: Object = json.loads(json.dumps(template))  # unshares what YAML anchors made one object
    try:
        _set_metadata(job, order, settings.cluster)
        _set_spec(job["spec"], order, settings.cluster)
        _set_sizes(job["spec"]["rayClusterSpec"], order, settings)
        for pod in _pods(job["spec"]):
            _set_pod(pod, order, settings.cluster)
    except (KeyError, IndexError, TypeError) as error:
        raise ConfigError(
            "the RayJob template lacks a field", got=repr(error), fix="start from k8s/base/rayjob.yaml"
        ) from error
    return job


def _set_metadata(job: Object, order: Order, settings: ClusterSettings) -> None:
    metadata = job["metadata"]
    metadata["name"], metadata["namespace"] = order.name, settings.kube_namespace
    metadata["labels"] = {**metadata.get("labels", {}), **settings.job_labels, **order.labels}
    metadata["annotations"] = {**metadata.get("annotations", {}), **settings.job_annotations, **order.annotations}


def _set_spec(spec: Object, order: Order, settings: ClusterSettings) -> None:
    spec["entrypoint"] = shlex.join(["rcg", "job", order.spec_uri])
    spec["submissionMode"] = settings.submission_mode
    if settings.submission_mode == "SidecarMode":  # the operator then refuses what is about a submitter's own pod
        spec.pop("submitterPodTemplate", None)
        spec.pop("submitterConfig", None)
    for field, value in (
        ("activeDeadlineSeconds", settings.active_deadline_s),
        ("preRunningDeadlineSeconds", settings.pre_running_deadline_s),
        ("ttlSecondsAfterFinished", settings.job_ttl_s),
    ):
        if value is not None:
            spec[field] = value


def _set_sizes(cluster: Object, order: Order, settings: Settings) -> None:
    head, group = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    group["replicas"] = group["minReplicas"] = group["maxReplicas"] = settings.worker.workers
    ray, worker = (part["template"]["spec"]["containers"][0] for part in (head, group))
    _request(ray, settings.cluster.head_cpus, settings.cluster.head_memory)
    _request(worker, settings.cluster.worker_cpus, settings.cluster.worker_memory)
    if settings.worker.gpus_per_worker:
        for amounts in ("requests", "limits"):
            worker["resources"][amounts]["nvidia.com/gpu"] = str(settings.worker.gpus_per_worker)
    # Also on the head, which tells the workers: the same number everywhere, whatever machines they are on.
    threads = {"OMP_NUM_THREADS": str(n_threads(worker["resources"]["requests"]["cpu"]))}
    shared = threads | _interfaces(settings.cluster)
    _set_env(ray, pod_settings(order, settings) | shared)
    _set_env(worker, shared)


def _interfaces(settings: ClusterSettings) -> dict[str, str]:
    named = {"GLOO_SOCKET_IFNAME": settings.gloo_interface, "NCCL_SOCKET_IFNAME": settings.nccl_interface}
    return {name: value for name, value in named.items() if value is not None}


def pod_settings(order: Order, settings: Settings) -> dict[str, str]:
    """What `rcg job` in the head is told of where and how fast; the spec has the rest."""
    device = settings.worker.device
    if device == "auto":
        device = "cuda" if settings.worker.gpus_per_worker else "cpu"
    values: dict[str, object] = {
        "executor": "ray",
        "device": device,
        "mlflow_uri": "off",  # the driver's writer reads the events from the store
        "rayjob": order.name,
        "image": settings.cluster.image,
    }
    values |= {name: getattr(settings.worker, name) for name in _PASSED_ON}
    return {f"RCG_{name.upper()}": str(value) for name, value in values.items() if value is not None}


_PASSED_ON = (
    "workers",
    "gpus_per_worker",
    "threads",
    "checkpoint_every",
    "keep_checkpoints",
    "max_failures",
    "mix_versions",
    "compile",
    "micro_batch",
    "shard",
    "recompute",
)


def n_threads(cpus: str) -> int:
    """Threads for a Kubernetes CPU quantity: whole cores, at least one."""
    cores = float(cpus[:-1]) / 1000 if cpus.endswith("m") else float(cpus)
    return max(1, math.floor(cores))


def _request(container: Object, cpus: str | None, memory: str | None) -> None:
    """CPU as a request, so that a pod may use what is idle; memory as request and limit."""
    resources = container.setdefault("resources", {})
    requests, limits = resources.setdefault("requests", {}), resources.setdefault("limits", {})
    if cpus is not None:
        requests["cpu"] = cpus
    if memory is not None:
        requests["memory"] = limits["memory"] = memory


def _pods(spec: Object) -> Iterator[Object]:
    """The pod templates: submitter, head, workers."""
    if "submitterPodTemplate" in spec:
        yield spec["submitterPodTemplate"]
    cluster = spec["rayClusterSpec"]
    yield from (group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))


def _set_pod(pod: Object, order: Order, settings: ClusterSettings) -> None:
    metadata = pod.setdefault("metadata", {})
    metadata["labels"] = {**metadata.get("labels", {}), **settings.job_labels, **order.labels}
    if settings.job_annotations:
        metadata["annotations"] = {**metadata.get("annotations", {}), **settings.job_annotations}
    spec = pod["spec"]
    for field, value in (
        ("serviceAccountName", settings.service_account),
        ("priorityClassName", settings.priority_class),
    ):
        if value is not None:
            spec[field] = value
    for container in spec["containers"]:
        container["image"] = settings.image
        container["imagePullPolicy"] = settings.image_pull_policy
        if settings.cpu_limits:
            container["resources"]["limits"]["cpu"] = container["resources"]["requests"]["cpu"]
        if settings.bucket_secret is not None:
            for source in container.get("envFrom", []):
                if "secretRef" in source:
                    source["secretRef"]["name"] = settings.bucket_secret


def _set_env(container: Object, values: Mapping[str, Any]) -> None:
    kept = [entry for entry in container.get("env", []) if entry["name"] not in values]
    container["env"] = kept + [{"name": name, "value": str(value)} for name, value in sorted(values.items())]
