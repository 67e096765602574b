"""What the status of a RayJob and of its pods says. Pure functions over what the API server sends."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from flows.executors.kuberay.cluster import Object
from flows.runs.records import Failure

Kind = Literal["succeeded", "permanent", "transient", "capacity", "budget", "stopped"]
"""permanent: would come again. transient: a new attempt may go on. capacity: never got its pods. budget: took too long.
stopped: somebody ended it."""

_OVER = ("Complete", "Failed", "ValidationFailed")
_NOT_STARTED = ("", "Initializing", "Waiting")
_CANNOT_START = {
    "ErrImagePull": "image",
    "ImagePullBackOff": "image",
    "ErrImageNeverPull": "image",
    "InvalidImageName": "image",
    "CreateContainerConfigError": "pod",
}
_LOG_LINES = 20


@dataclass(frozen=True)
class Ending:
    kind: Kind
    message: str


@dataclass(frozen=True)
class Fault:
    """Why a container cannot start, and waiting will hardly mend it."""

    about: str
    """image or pod."""
    message: str


def deployment_status(job: Object) -> str:
    """jobDeploymentStatus; empty before the operator has seen the job."""
    return str((job.get("status") or {}).get("jobDeploymentStatus", ""))


def job_status(job: Object) -> str:
    return str((job.get("status") or {}).get("jobStatus", ""))


def is_live(job: Object) -> bool:
    """Neither over nor being deleted."""
    return deployment_status(job) not in _OVER and "deletionTimestamp" not in job["metadata"]


def has_started(job: Object) -> bool:
    """Its pods are or were all there."""
    return deployment_status(job) not in _NOT_STARTED


def ending_of(job: Object, failure: Failure | None, seen: str | None) -> Ending | None:
    """How a job ended; None while it goes on. `seen` is what its pods told last.

    A FAILED jobStatus alone is not the end, and a STOPPED job ends as Complete.
    """
    status = job.get("status") or {}
    reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    told = f"{reason}: {message}".strip(": ")
    match deployment_status(job):
        case "Complete" if job_status(job) == "SUCCEEDED":
            return Ending("succeeded", "")
        case "Complete":
            return Ending("stopped", f"the job was stopped ({job_status(job)})")
        case "ValidationFailed":
            return Ending("permanent", told)
        case "Failed":
            return _failed(reason, told, failure, seen)
    return None


def _failed(reason: str, told: str, failure: Failure | None, seen: str | None) -> Ending:
    if reason == "PreRunningDeadlineExceeded":
        return Ending("capacity", seen or told)
    if reason == "DeadlineExceeded":
        return Ending("budget", told)
    if failure is not None:
        return Ending("transient" if failure.failure_class == "transient" else "permanent", failure.message)
    return Ending("transient", "\n".join(filter(None, [seen, _tail(told)])))


def _tail(message: str) -> str:
    """The operator puts the log into its message, up to 20,000 characters of it."""
    head, *lines = message.splitlines() or [""]
    return "\n".join([head, *lines[-_LOG_LINES:]])


def cannot_start(pods: Iterable[Object]) -> Fault | None:
    """An image that cannot be pulled, a Secret that is not there."""
    for _, container in _containers(pods):
        waiting = (container.get("state") or {}).get("waiting") or {}
        about = _CANNOT_START.get(waiting.get("reason", ""))
        if about is not None:
            what = container.get("image", "") if about == "image" else container["name"]
            return Fault(about, f"{what}: {waiting.get('message') or waiting['reason']}")
    return None


def no_room(pods: Iterable[Object]) -> str | None:
    """What the scheduler says of the first pod that it finds no node for."""
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
                return f"{_role(pod)}: {condition.get('message', 'Unschedulable')}"
    return None


def lost(pods: Iterable[Object]) -> str | None:
    """Why a pod ended that should not have: out of memory, evicted, preempted."""
    for pod in pods:
        status = pod.get("status") or {}
        if status.get("reason") in ("Evicted", "Preempting", "Preempted", "NodeLost", "Shutdown"):
            return f"{_role(pod)} {status['reason']}: {status.get('message', '')}".strip(": ")
        for condition in status.get("conditions") or []:
            if condition["type"] == "DisruptionTarget" and condition.get("status") == "True":
                return f"{_role(pod)} {condition.get('reason')}: {condition.get('message', '')}".strip(": ")
    for pod, container in _containers(pods):
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            if (state.get("terminated") or {}).get("reason") == "OOMKilled":
                return f"{_role(pod)} OOMKilled: it needed more memory than its limit"
    return None


def _role(pod: Object) -> str:
    """head, worker or submitter, and the pod's name."""
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    return f"{labels.get('ray.io/node-type', 'submitter')} {metadata['name']}"


def _containers(pods: Iterable[Object]) -> Iterator[tuple[Object, Object]]:
    for pod in pods:
        status = pod.get("status") or {}
        for container in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
            yield pod, container
