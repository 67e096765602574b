"""The image that production uses, built whole (CPU flavor): minutes and some 20 GB, so only where it is asked for."""

import json
import os
import uuid

import pytest
import yaml

from flows.executors.image import stage_digests
from tests.support import cluster_rig
from tests.support.cluster_rig import kubectl
from tests.support.manifests import K8S, objects, pod_specs

JOBS = "rcg-jobs"
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


def test_full_image_runs_a_rayjob_under_the_templates_restrictions() -> None:
    expected = stage_digests()
    cluster_rig.full_image()
    job = json.loads(json.dumps(objects(K8S / "base/rayjob.yaml")[0]))
    name = job["metadata"]["name"] = f"rcg-image-{uuid.uuid4().hex[:8]}"
    for _, pod in pod_specs(job):
        for container in pod["containers"]:
            container["image"] = cluster_rig.FULL
            container["resources"]["requests"] = {"cpu": "100m", "memory": "200Mi"}
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"] = []
    job["spec"]["entrypoint"] = f"python -c '{_FACTS.replace(chr(39), chr(34))}'"
    kubectl("create", "--validate=strict", "-f", "-", stdin=yaml.safe_dump(job))
    try:
        cluster_rig.wait_until(lambda: _ended(name), f"the end of {name}", 400)
        status = cluster_rig.resource("rayjob", name, JOBS)["status"]
        assert status["jobStatus"] == "SUCCEEDED", status
        log = kubectl("-n", JOBS, "logs", "-l", f"job-name={name}", "--tail=-1")
        facts = json.loads(next(line for line in log.splitlines() if line.startswith("FACTS ")).removeprefix("FACTS "))
    finally:
        kubectl("-n", JOBS, "delete", "rayjob", name, "--wait=false")
    assert facts["prefix"] == "/opt/venv", "the host's environment, not the image's"
    assert facts["code"] == expected
    assert facts["sum"] == 3
    assert facts["gpu"] is False
    assert "Usage: rcg" in facts["rcg"]


def _ended(name: str) -> bool:
    status = cluster_rig.resource("rayjob", name, JOBS).get("status", {})
    return status.get("jobDeploymentStatus") in ("Complete", "Failed", "ValidationFailed")
