"""Of RayJobs the API server admits what `launch` makes and nothing else, whatever fields KubeRay has."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.admission import Server, made
from tests.support import cluster_rig
from tests.support.cluster_jobs import JOBS
from tests.support.cluster_rig import kubectl
from tests.support.manifests import Object

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


def test_policy_has_no_type_errors() -> None:
    status = cluster_rig.resource("validatingadmissionpolicy", "rcg-rayjobs", "")["status"]
    assert status["observedGeneration"] >= 1
    assert not status.get("typeChecking", {}).get("expressionWarnings")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image": f"localhost/rcg@sha256:{'a' * 64}"},
        {"submission_mode": "SidecarMode"},
        {"workers": 4, "gpus_per_worker": 1, "device": "cuda", "worker_cpus": "10", "worker_memory": "100Gi"},
        {"job_labels": {"kueue.x-k8s.io/queue-name": "research"}, "priority_class": "rcg-stage", "job_ttl_s": 0},
        {"store": "file:///shared/a folder", "shared_folder": "/shared"},
    ],
    ids=lambda settings: next(iter(settings), "defaults"),
)
def test_what_launch_makes_is_admitted(server: Server, settings: dict[str, Any]) -> None:
    assert server.create(made(**settings)) == ""


def head(job: Object) -> Any:
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]


def worker(job: Object) -> Any:
    return job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]


def submitter(job: Object) -> Any:
    return job["spec"]["submitterPodTemplate"]["spec"]


def _secret(name: str) -> Object:
    return {"name": "X", "valueFrom": {"secretKeyRef": {"name": name, "key": "x"}}}


POD_CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "account": (lambda pod: pod.update(serviceAccountName="default"), "runs as service account rcg-worker"),
    "token": (lambda pod: pod.pop("automountServiceAccountToken"), "automountServiceAccountToken: false"),
    "image": (lambda pod: pod["containers"][0].update(image="docker.io/library/busybox:1"), "repository localhost/rcg"),
    "image alike": (lambda pod: pod["containers"][0].update(image="localhost/rcgx:a"), "repository localhost/rcg"),
    "image digest": (lambda pod: pod["containers"][0].update(image="localhost/rcg@sha256:a"), "repository"),
    "second container": (lambda pod: pod["containers"].append(pod["containers"][0] | {"name": "b"}), "one container"),
    "init container": (lambda pod: pod.update(initContainers=pod["containers"]), "pod.initContainers"),
    "command": (lambda pod: pod["containers"][0].update(command=["sh"]), "container.command"),
    "host probe": (
        lambda pod: pod["containers"][0].update(readinessProbe={"httpGet": {"port": 1, "host": "10.0.0.1"}}),
        "httpGet.host",
    ),
    "host port": (
        lambda pod: pod["containers"][0].update(ports=[{"containerPort": 1, "hostPort": 1}]),
        "ports.hostPort",
    ),
    "root": (lambda pod: pod["securityContext"].update(runAsNonRoot=False), "securityContexts"),
    "writable": (
        lambda pod: pod["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
        "securityContexts",
    ),
    "no security": (lambda pod: pod.pop("securityContext"), "securityContext"),
    "other Secret": (lambda pod: pod["containers"][0].update(envFrom=[{"secretRef": {"name": "b"}}]), "rcg-bucket"),
    "Secret's key": (lambda pod: pod["containers"][0]["env"].append(_secret("other")), "no Secret but rcg-bucket"),
    "config": (lambda pod: pod["containers"][0].update(envFrom=[{"configMapRef": {"name": "b"}}]), "rcg-bucket"),
    "variable": (lambda pod: pod["containers"][0]["env"].append({"name": "LD_PRELOAD", "value": "x"}), "list `env`"),
    "node": (lambda pod: pod.update(nodeName="rcg"), "pod.nodeName"),
    "host network": (lambda pod: pod.update(hostNetwork=True), "pod.hostNetwork"),
    "priority": (lambda pod: pod.update(priorityClassName="system-node-critical"), "priority classes are"),
    "tolerations": (lambda pod: pod.update(tolerations=[{"operator": "Exists"}]), "keys of tolerations"),
    "control plane": (
        lambda pod: pod.update(tolerations=[{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]),
        "keys of tolerations",
    ),
    "node label": (lambda pod: pod.update(nodeSelector={"a": "b"}), "nodeSelector stand in"),
}
VOLUMES: list[Object] = [
    {"secret": {"secretName": "other"}},
    {"projected": {"sources": [{"secret": {"name": "rcg-bucket"}}]}},
    {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    {"hostPath": {"path": "/"}},
    {"csi": {"driver": "secrets-store.csi.k8s.io"}},
    {"persistentVolumeClaim": {"claimName": "other"}},
    {"configMap": {"name": "rcg-admission"}},
]
POD_CHANGES |= {
    f"volume {i}": (lambda pod, v=volume: pod["volumes"].append({"name": "mine", **v}), "volumes are emptyDir")  # type: ignore[misc]
    for i, volume in enumerate(VOLUMES)
}


@pytest.mark.parametrize("part", [head, worker, submitter])
def test_other_pods_are_refused(server: Server, part: Callable[[Object], Any]) -> None:
    for name, (change, words) in POD_CHANGES.items():
        job = made()
        change(part(job))
        answer = server.create(job)
        assert "denied request" in answer, name
        assert words in answer, name


JOB_CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "other command": (lambda spec: spec.update(entrypoint="rcg job x; curl example.com"), "the entrypoint is"),
    "no entrypoint": (lambda spec: spec.pop("entrypoint"), "no such key"),
    "no submitter": (lambda spec: spec.pop("submitterPodTemplate"), "submissionMode is"),
    "http": (lambda spec: spec.update(submissionMode="HTTPMode"), "submissionMode is"),
    "no cluster": (lambda spec: spec.pop("rayClusterSpec"), "brings its own rayClusterSpec"),
    "another's cluster": (lambda spec: spec.update(clusterSelector={"ray.io/cluster": "a"}), "spec.clusterSelector"),
    "code": (lambda spec: spec.update(runtimeEnvYAML="pip: [a]"), "spec.runtimeEnvYAML"),
    "shell": (
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": "0; id"}),
        "words",
    ),
    "flag": (
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"plasma-directory": "a"}),
        "rayStartParams.plasma-directory",
    ),
    "no token": (lambda spec: spec["rayClusterSpec"].pop("authOptions"), "authOptions is"),
    "other token": (lambda spec: spec["rayClusterSpec"]["authOptions"].update(secretName="a"), "authOptions is"),
    "load balancer": (
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"].update(serviceType="LoadBalancer"),
        "group.serviceType",
    ),
    "operator's label": (
        lambda spec: spec["submitterPodTemplate"]["metadata"]["labels"].update({"ray.io/a": "b"}),
        "a label or annotation",
    ),
    "network's annotation": (
        lambda spec: spec["submitterPodTemplate"]["metadata"].update(annotations={"k8s.v1.cni.cncf.io/networks": "a"}),
        "a label or annotation",
    ),
}


@pytest.mark.parametrize("name", JOB_CHANGES)
def test_other_jobs_are_refused(server: Server, name: str) -> None:
    job, (change, words) = made(), JOB_CHANGES[name]
    change(job["spec"])
    answer = server.create(job)
    assert "denied request" in answer
    assert words in answer


def test_an_annotation_that_the_operator_obeys_is_refused(server: Server) -> None:
    job = made()
    job["metadata"]["annotations"]["ray.io/ft-enabled"] = "true"
    assert "a label or annotation" in server.create(job)


def schema_of_rayjobs() -> Object:
    crd = cluster_rig.resource("crd", "rayjobs.ray.io", "")
    (version,) = (each for each in crd["spec"]["versions"] if each["name"] == "v1")
    found: Object = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def sample(schema: Object) -> Any:
    """A value that the schema allows, short."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("x-kubernetes-int-or-string"):
        return 1
    match schema["type"]:
        case "object":
            properties = schema.get("properties", {})
            return {name: sample(properties[name]) for name in schema.get("required", [])}
        case "array":
            return [sample(schema["items"])]
    return {"string": "a", "boolean": True, "integer": 1, "number": 1}[schema["type"]]


HEAD = ("headGroupSpec", "template")


def absent(value: Any, schema: Object, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(path, value) of every field that the schema knows and the object has not, at each place where it has others.

    One pod stands for all, and the first of a list for the others: the policy treats them alike.
    """
    if isinstance(value, list):
        yield from absent(value[0], schema["items"], (*path, 0))
    elif (
        isinstance(value, dict)
        and path[-1:] != ("submitterPodTemplate",)
        and path[-2:] != ("headGroupSpec", "template")
    ):
        for name, field in schema.get("properties", {}).items():
            if name in value:
                yield from absent(value[name], field, (*path, name))
            else:
                yield (*path, name), sample(field)


HARMLESS = {
    "suspend",
    "numOfHosts",
    "annotations",
    "ports",
    "scheme",
    "initialDelaySeconds",
    "successThreshold",
    "subPath",
    "nodeSelector",
    "restartPolicy",
    "fsGroupChangePolicy",
    "tolerationSeconds",
    "value",
    "medium",
    "sizeLimit",
    "readOnly",
    "scaleStrategy",
}
"""Queues suspend; the rest is empty here, or says how and not what."""


def test_every_other_field_of_this_kuberay_is_refused(server: Server) -> None:
    """Of all places where `launch` sets some; each by itself."""
    job, admitted, invalid, n = made(), set(), set(), 0
    for path, value in absent(job["spec"], schema_of_rayjobs()):
        changed = copy.deepcopy(job)
        place: Any = changed["spec"]
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value
        answer = server.create(changed)
        if "denied request" in answer:
            n += 1
        else:
            (invalid if answer else admitted).add(path[-1])
    assert admitted <= HARMLESS
    assert invalid <= {"deletionStrategy", "managedBy"}, "no valid value was tried"
    assert n > 100


def test_policy_ends_at_the_namespace(server: Server) -> None:
    job = made()
    job["metadata"]["namespace"] = "default"
    head(job)["serviceAccountName"] = "default"
    assert server.create(job, "default") == ""


def test_an_overlay_lets_more_through(server: Server) -> None:
    def merge(more: dict[str, str]) -> None:
        kubectl("-n", JOBS, "patch", "configmap", "rcg-admission", "-p", json.dumps({"data": more}))

    job, before = made(), cluster_rig.resource("configmap", "rcg-admission", JOBS)["data"]
    worker(job).update(
        nodeSelector={"gpu": "h100"}, tolerations=[{"key": "team", "operator": "Exists"}], runtimeClassName="nvidia"
    )
    worker(job)["containers"][0]["env"].append({"name": "NCCL_DEBUG", "value": "INFO"})
    worker(job)["volumes"].append({"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}})
    job["metadata"]["labels"]["team"] = "vision"
    assert "denied request" in server.create(job)
    more = {"nodeLabels": "zone gpu", "podFields": "affinity runtimeClassName", "env": "NCCL_*", "claims": "shared"}
    more |= {name: f"{before[name]} team" for name in ("labels", "tolerations")}
    merge(more)
    try:
        cluster_rig.wait_until(lambda: server.create(job) == "", "the overlay's list in the policy", 20)
    finally:
        merge({name: before[name] for name in more})
    cluster_rig.wait_until(lambda: server.create(job) != "", "the base's list in the policy", 20)
