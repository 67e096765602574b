"""The image that production uses, built whole (CPU flavor): minutes and some 20 GB, so only where it is asked for."""

import json
import os
import uuid
from collections.abc import Callable

import pytest

from flows.executors.image import stage_digests
from tests.support import cluster_rig
from tests.support.cluster_jobs import JOBS, SMALL, Checkout
from tests.support.cluster_rig import kubectl, wait_until
from tests.support.manifests import K8S, objects

_FACTS = """
import json, pathlib, subprocess, sys
import torch, torchvision, timm, ray
facts = {
    "prefix": sys.prefix,
    "code": json.loads(pathlib.Path("/opt/rcg/code.json").read_text()),
    "sum": float(torch.ones(3).sum()),
    "gpu": torch.cuda.is_available(),
    "rcg": subprocess.run(["rcg", "--help"], capture_output=True, text=True, check=True).stdout[:200],
}
print("FACTS " + json.dumps(facts))
"""
pytestmark = [
    pytest.mark.skipif(os.environ.get("RCG_CLUSTER_FULL_IMAGE") != "1", reason="set RCG_CLUSTER_FULL_IMAGE=1"),
    pytest.mark.usefixtures("cluster"),
    pytest.mark.timeout(1800),
]


def test_full_image_holds_this_code_and_all_that_it_needs() -> None:
    """In a pod with all restrictions of a head's, as admission lets no RayJob run anything but `rcg job`."""
    cluster_rig.full_image()
    name = f"rcg-image-{uuid.uuid4().hex[:8]}"
    template = objects(K8S / "base/rayjob.yaml")[0]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    head = template["containers"][0]
    container = {key: head[key] for key in ("env", "securityContext", "volumeMounts")}
    container |= {"name": "facts", "image": cluster_rig.FULL, "command": ["python", "-c", _FACTS]}
    container["resources"] = {"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"memory": "2Gi"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": template | {"restartPolicy": "Never", "containers": [container]},
    }
    kubectl("-n", JOBS, "create", "--validate=strict", "-f", "-", stdin=json.dumps(pod))
    try:
        phase = wait_until(lambda: _ended(name), f"the end of {name}", 400)
        log = kubectl("-n", JOBS, "logs", name)
    finally:
        kubectl("-n", JOBS, "delete", "pod", name, "--wait=false")
    assert phase == "Succeeded", log
    facts = json.loads(next(line for line in log.splitlines() if line.startswith("FACTS ")).removeprefix("FACTS "))
    assert facts["prefix"] == "/opt/venv", "the host's environment, not the image's"
    assert facts["code"] == stage_digests()
    assert facts["sum"] == 3
    assert facts["gpu"] is False
    assert "Usage: rcg" in facts["rcg"]


def test_full_image_runs_a_stage(checkout: Callable[..., Checkout], collected: Checkout) -> None:
    cluster_rig.full_image()
    place = checkout(settings=SMALL | {"RCG_IMAGE": cluster_rig.FULL})
    place.prepare_as(collected)
    done = place.rcg("run", "encoder")
    assert done.code == 0, done.text
    [job] = place.jobs()
    assert job["status"]["jobStatus"] == "SUCCEEDED"


def _ended(name: str) -> str | None:
    phase: str = cluster_rig.resource("pod", name, JOBS).get("status", {}).get("phase", "")
    return phase if phase in ("Succeeded", "Failed") else None
