"""What the status of a RayJob and of its pods says. Pure functions over what the API server sends."""

import re
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
_CANNOT_START: dict[str, "About"] = {
    "ErrImagePull": "image",
    "ImagePullBackOff": "image",
    "ErrImageNeverPull": "image",
    "InvalidImageName": "image",
    "ImageInspectError": "image",
    "CreateContainerConfigError": "container",
    "CreateContainerError": "container",
    "RunContainerError": "container",
}
_CRASHES = 3
"""A container that ended so often before its job started will do so again; the kubelet took 30 s for that."""
_NEVER_RAN = ("StartError", "ContainerCannotRun")
LOG_LINES = 20

About = Literal["image", "container", "crash", "pod"]
_WHAT: dict[About, str] = {
    "image": "the image cannot be pulled",
    "container": "a container cannot be made",
    "crash": "a container ends again and again, so Ray never starts",
    "pod": "a pod is refused",
}
_PASSES = ("exceeded quota", "status unknown for quota")
"""Refusals that are about room, or about a quota that was made a moment ago."""
_EXCEEDED = re.compile(r"exceeded quota: .*requested: (.*), used: .*, limited: (.*)")
_AMOUNT = re.compile(r"([^=,\s]+)=(\d+(?:\.\d+)?)(m|k|[KMGTP]i|[MGTP])?(?=,|$)")
_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3} | {
    unit: size for i, name in enumerate("KMGTP", 1) for unit, size in ((f"{name}i", 1024.0**i), (name, 1000.0**i))
}


@dataclass(frozen=True)
class Ending:
    kind: Kind
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Fault:
    """Why a pod cannot start, and waiting will hardly mend it."""

    about: About
    message: str
    pod: str = ""
    container: str = ""

    @property
    def text(self) -> str:
        return f"{_WHAT[self.about]}: {self.message}"

    @property
    def fix(self) -> str:
        """Empty where the message is all there is to say."""
        if self.about == "crash":
            return "use an image of `make image`; if memory is short: RCG_HEAD_MEMORY, RCG_WORKER_MEMORY"
        if "must specify limits.cpu" in self.message:
            return "set RCG_CPU_LIMITS=true, or give the namespace a LimitRange with a default"
        if "exceeded quota" in self.message:
            return (
                "ask for less: RCG_HEAD_MEMORY, RCG_WORKER_MEMORY, RCG_HEAD_CPUS, RCG_WORKER_CPUS; or raise the quota"
            )
        if "violates PodSecurity" in self.message:
            return "keep injected sidecars out of the namespace: docs/how-to/run-on-a-cluster.md"
        return ""


def deployment_status(job: Object) -> str:
    """jobDeploymentStatus; empty before the operator has seen the job."""
    return str((job.get("status") or {}).get("jobDeploymentStatus", ""))


def job_status(job: Object) -> str:
    return str((job.get("status") or {}).get("jobStatus", ""))


def is_live(job: Object) -> bool:
    """Neither over nor being deleted."""
    return deployment_status(job) not in _OVER and "deletionTimestamp" not in job["metadata"]


def has_started(job: Object) -> bool:
    """Its pods are or were all there, the submitter's too."""
    return deployment_status(job) not in _NOT_STARTED and job_status(job) != ""


def ending_of(job: Object, failure: Failure | None, seen: str | None) -> Ending | None:
    """How a job ended; None while it goes on. `seen` is what its pods told last.

    A FAILED jobStatus alone is not the end, and a STOPPED job ends as Complete. A sidecar that keeps the
    submitter's pod keeps no job: the operator ends it five minutes after Ray did.
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
    return "\n".join([head, *lines[-LOG_LINES:]])


def cannot_start(pods: Iterable[Object]) -> Fault | None:
    """An image that cannot be pulled, a Secret that is not there, a command that is missing or fails each time."""
    pods = list(pods)
    for pod, container in _containers(pods):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, place = waiting.get("reason", ""), (pod["metadata"]["name"], container["name"])
        if reason in _CANNOT_START:
            about = _CANNOT_START[reason]
            what = container.get("image", "") if about == "image" else f"{_role(pod)}, {container['name']}"
            return Fault(about, f"{what}: {waiting.get('message') or reason}", *place)
        if reason == "CrashLoopBackOff":
            last = (container.get("lastState") or {}).get("terminated") or {}
            if last.get("reason") in _NEVER_RAN:
                return Fault("container", f"{_role(pod)}, {container['name']}: {last.get('message', '')}", *place)
            if container.get("restartCount", 0) + 1 >= _CRASHES and not _found_no_head(pod, last, pods):
                told = f"{last.get('reason', 'Error')}, exit code {last.get('exitCode')}"
                return Fault("crash", f"{_role(pod)}, {container['name']}: {told}", *place)
    return None


def _found_no_head(pod: Object, ended: Object, pods: Iterable[Object]) -> bool:
    """Whether a worker began before its head was ready: on a busy node Ray then gives up, and comes up later."""
    if _node_type(pod) != "worker":
        return False
    conditions = [
        condition
        for other in pods
        if _node_type(other) == "head"
        for condition in (other.get("status") or {}).get("conditions") or []
    ]
    ready = [c["lastTransitionTime"] for c in conditions if c["type"] == "Ready" and c.get("status") == "True"]
    return not ready or str(ended.get("startedAt", "")) < min(ready)


def refused(warning: str) -> Fault | None:
    """A pod that the API server or a webhook will not let in, by the last warning about whoever makes it."""
    for mark in (" is forbidden: ", " denied the request: "):
        _, found, why = warning.partition(mark)
        if found and (_never_fits(why) or not any(words in why for words in _PASSES)):
            return Fault("pod", why)
    return None


def _never_fits(why: str) -> bool:
    """Whether one pod asks for more than a quota has in all. One that has nothing makes everybody wait."""
    found = _EXCEEDED.search(why)
    if found is None:
        return False
    asked, most = (_amounts(text) for text in found.groups())
    return any(0 < most.get(name, 0) < amount for name, amount in asked.items())


def _amounts(text: str) -> dict[str, float]:
    return {name: float(number) * _UNITS[unit] for name, number, unit in _AMOUNT.findall(text)}


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
    return f"{_node_type(pod)} {pod['metadata']['name']}"


def _node_type(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get("ray.io/node-type", "submitter"))


def _containers(pods: Iterable[Object]) -> Iterator[tuple[Object, Object]]:
    for pod in pods:
        status = pod.get("status") or {}
        for container in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
            yield pod, container
