"""What statuses mean. Those in tests/data/rayjobs.json are recorded from a real cluster; others follow its API."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from flows.executors.kuberay.failures import (
    cannot_start,
    deployment_status,
    ending_of,
    has_started,
    is_live,
    lost,
    no_room,
    refused,
)
from flows.runs.records import Failure

RECORDED = json.loads((Path(__file__).parents[3] / "data/rayjobs.json").read_text())
JOBS, PODS, WARNINGS = RECORDED["jobs"], RECORDED["pods"], RECORDED["warnings"]


SIDECAR = "JobDeploymentStatusTransitionGracePeriodExceeded"
"""The operator's word for a submitter whose pod goes on after the job, e.g. with a proxy beside it."""


def failure(kind: Any) -> Failure:
    return Failure(schema_version=1, failure_class=kind, message="picture 3 is damaged")


def job(**status: str) -> dict[str, Any]:
    return {"metadata": {"name": "a"}, "status": status}


@pytest.mark.parametrize("name", ["new", "initializing", "running", "succeeded but not complete"])
def test_these_go_on(name: str) -> None:
    assert ending_of(JOBS[name], None, None) is None
    assert is_live(JOBS[name])
    assert has_started(JOBS[name]) == (deployment_status(JOBS[name]) == "Running")


def test_a_failed_status_alone_is_not_the_end() -> None:
    assert ending_of(job(jobDeploymentStatus="Running", jobStatus="FAILED"), failure("data"), None) is None
    for status in ("Suspended", "Suspending", "Retrying", "Waiting", "of a later version"):
        assert ending_of(job(jobDeploymentStatus=status, jobStatus="FAILED"), None, None) is None
        assert is_live(job(jobDeploymentStatus=status))


@pytest.mark.parametrize(
    ("found", "told", "kind"),
    [
        (JOBS["complete"], None, "succeeded"),
        (job(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", reason=SIDECAR), None, "succeeded"),
        (job(jobDeploymentStatus="Failed", jobStatus="FAILED", reason=SIDECAR), "data", "permanent"),
        (JOBS["app failed"], None, "transient"),
        (JOBS["app failed"], "transient", "transient"),
        (JOBS["app failed"], "data", "permanent"),
        (JOBS["app failed"], "config", "permanent"),
        (JOBS["app failed"], "code", "permanent"),
        (JOBS["pre-running deadline"], None, "capacity"),
        (job(jobDeploymentStatus="Failed", jobStatus="RUNNING", reason="DeadlineExceeded"), None, "budget"),
        (job(jobDeploymentStatus="Failed", reason="SubmissionFailed"), None, "transient"),
        (job(jobDeploymentStatus="Failed", reason="JobStatusCheckTimeoutExceeded"), None, "transient"),
        (job(jobDeploymentStatus="ValidationFailed", reason="ValidationRayJobSpecFailed"), None, "permanent"),
        (job(jobDeploymentStatus="Complete", jobStatus="STOPPED"), None, "stopped"),
    ],
)
def test_ends(found: dict[str, Any], told: Any, kind: str) -> None:
    ended = ending_of(found, None if told is None else failure(told), None)
    assert ended is not None
    assert ended.kind == kind
    assert not is_live(found)


def test_a_job_that_is_being_deleted_is_not_live() -> None:
    going = copy.deepcopy(JOBS["running"])
    going["metadata"]["deletionTimestamp"] = "2026-11-23T17:00:00Z"
    assert not is_live(going)


def test_messages_are_those_of_whoever_knows_best() -> None:
    assert ending_of(JOBS["app failed"], failure("data"), "OOMKilled").message == "picture 3 is damaged"
    assert "preRunningDeadlineSeconds" in ending_of(JOBS["pre-running deadline"], None, None).message
    assert ending_of(JOBS["pre-running deadline"], None, "no GPU left").message == "no GPU left"
    lines = ending_of(JOBS["app failed"], None, "worker w OOMKilled").message.splitlines()
    assert lines[0] == "worker w OOMKilled"
    assert lines[1].startswith("AppFailed: Job entrypoint command failed with exit code 3")
    assert any(line.startswith("error: base.json") for line in lines)
    many = job(jobDeploymentStatus="Failed", reason="AppFailed", message="\n".join(map(str, range(1000))))
    assert ending_of(many, None, None).message.splitlines() == ["AppFailed: 0", *map(str, range(980, 1000))]


@pytest.mark.parametrize("name", ["image not pulled", "pull backs off"])
def test_an_image_that_cannot_be_pulled_is_named(name: str) -> None:
    fault = cannot_start([PODS["unschedulable"], PODS[name]])
    assert fault is not None
    assert fault.about == "image"
    assert fault.message.startswith("localhost/rcg:absent: ")
    assert cannot_start([PODS["unschedulable"]]) is None


@pytest.mark.parametrize(
    ("name", "about", "words"),
    [
        ("crash loop", "crash", "head try-noray-zm57f-head-c66r9, ray-head: Error, exit code 127"),
        ("cannot be run", "container", 'exec: "/bin/bash": stat /bin/bash: no such file'),
        ("init cannot be run", "container", "wait-gcs-ready"),
    ],
)
def test_a_ray_that_never_starts_is_named(name: str, about: str, words: str) -> None:
    fault = cannot_start([PODS["waits for the head"], PODS[name]])
    assert fault is not None
    assert fault.about == about
    assert words in fault.text
    assert fault.pod == PODS[name]["metadata"]["name"]


def test_a_container_that_ended_once_or_twice_may_still_come_up() -> None:
    found = copy.deepcopy(PODS["crash loop"])
    found["status"]["containerStatuses"][0]["restartCount"] = 1
    assert cannot_start([found, PODS["waits for the head"]]) is None


@pytest.mark.parametrize(
    ("head", "about"),
    [
        ([], None),
        ([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-30T16:00:00Z"}], None),
        ([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-30T16:02:00Z"}], None),
        ([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-30T16:00:00Z"}], "crash"),
    ],
    ids=["new", "not ready", "ready later", "ready before"],
)
def test_workers_that_find_no_head_yet_may_still_come_up(head: list[dict[str, str]], about: str | None) -> None:
    worker = copy.deepcopy(PODS["crash loop"])
    worker["metadata"]["labels"]["ray.io/node-type"] = "worker"
    worker["status"]["containerStatuses"][0]["lastState"]["terminated"]["startedAt"] = "2026-11-30T16:01:00Z"
    first = pod(conditions=head)
    first["metadata"]["labels"] = {"ray.io/node-type": "head"}
    fault = cannot_start([first, worker])
    assert (fault and fault.about) == about


@pytest.mark.parametrize("reason", ["CreateContainerError", "RunContainerError", "CreateContainerConfigError"])
def test_a_container_that_cannot_be_made_is_named(reason: str) -> None:
    state = {"waiting": {"reason": reason, "message": "no such mount"}}
    fault = cannot_start([pod(containerStatuses=[{"name": "r", "state": state}])])
    assert fault is not None
    assert fault.text == "a container cannot be made: worker w-1, r: no such mount"


@pytest.mark.parametrize(
    ("warning", "fix"),
    [
        (WARNINGS["wants limits"], "RCG_CPU_LIMITS=true"),
        ('pods "h" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation', "sidecars"),
        ('pods "h" is forbidden: error looking up service account rcg-jobs/x: serviceaccount "x" not found', ""),
        ('admission webhook "policy.example.com" denied the request: no owner', ""),
    ],
)
def test_a_pod_that_is_refused_is_named_with_its_fix(warning: str, fix: str) -> None:
    fault = refused(warning)
    assert fault is not None
    assert fault.about == "pod"
    assert warning.endswith(fault.message)
    assert fix in fault.fix


_QUOTA = 'pods "h" is forbidden: exceeded quota: q, requested: {}, used: {}, limited: {}'


@pytest.mark.parametrize(
    ("asked", "used", "most", "fits"),
    [
        ("requests.cpu=4", "requests.cpu=6", "requests.cpu=8", True),
        ("requests.cpu=64", "requests.cpu=0", "requests.cpu=8", False),
        ("pods=1,requests.memory=9Gi", "pods=0,requests.memory=0", "pods=9,requests.memory=8Gi", False),
        ("requests.cpu=1500m,requests.memory=900Mi", "", "requests.cpu=1500m,requests.memory=1Gi", True),
        ("requests.nvidia.com/gpu=2", "requests.nvidia.com/gpu=0", "requests.nvidia.com/gpu=1", False),
        ("pods=1", "pods=1", "pods=0", True),
        ("requests.memory=9x", "requests.memory=0", "requests.memory=8", True),
    ],
)
def test_a_pod_that_a_quota_will_never_have_room_for_is_refused(asked: str, used: str, most: str, fits: bool) -> None:
    """A quota of nothing is how an administrator makes others wait."""
    fault = refused(_QUOTA.format(asked, used, most))
    assert (fault is None) == fits
    assert fault is None or "ask for less: RCG_HEAD_MEMORY" in fault.fix


@pytest.mark.parametrize(
    "warning",
    [WARNINGS["no room"], 'pods "h" is forbidden: status unknown for quota: q, resources: pods', "Back-off", ""],
)
def test_what_may_pass_is_waited_for(warning: str) -> None:
    assert refused(warning) is None


def test_what_the_scheduler_says() -> None:
    assert "Insufficient cpu" in no_room([PODS["pull backs off"], PODS["unschedulable"]])
    assert no_room([PODS["pull backs off"]]) is None
    assert no_room([]) is None


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "w-1", "labels": {"ray.io/node-type": "worker"}}, "status": status}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (pod(reason="Evicted", message="low on memory"), "worker w-1 Evicted: low on memory"),
        (
            pod(conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]),
            "worker w-1 PreemptionByScheduler",
        ),
        (pod(containerStatuses=[{"name": "r", "lastState": {"terminated": {"reason": "OOMKilled"}}}]), "OOMKilled"),
        (pod(containerStatuses=[{"name": "r", "state": {"terminated": {"reason": "OOMKilled"}}}]), "OOMKilled"),
    ],
)
def test_pods_that_ended_before_their_time(found: dict[str, Any], words: str) -> None:
    assert lost([PODS["unschedulable"], found]).startswith("worker w-1")
    assert words in lost([found])
    assert lost([PODS["unschedulable"], {"metadata": {"name": "x"}}]) is None
