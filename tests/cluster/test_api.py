"""What the real API server says of an operator that is absent or older than our RayJobs."""

import re
from pathlib import Path

import pytest
import yaml

from components.errors import ConfigError
from flows.executors.kuberay import api
from tests.support.cluster_jobs import JOBS
from tests.support.manifests import K8S


@pytest.fixture
def driver(driver_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> api.KubeApi:
    """The driver's account. The client read KUBECONFIG when it was imported."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(driver_kubeconfig))
    return api.KubeApi(JOBS)


def test_a_cluster_without_rayjobs_names_the_operator(driver: api.KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that no CRD has is answered like a CRD that is not there."""
    monkeypatch.setattr(api, "_RAY", ("ray.io", "v0"))
    with pytest.raises(ConfigError, match="the CRD of KubeRay is missing"):
        driver.jobs({})
    with pytest.raises(ConfigError, match="the CRD of KubeRay is missing"):
        driver.job("any")


def test_an_operator_that_lacks_a_field_is_too_old(driver: api.KubeApi) -> None:
    manifest = yaml.safe_load((K8S / "base/rayjob.yaml").read_text())
    manifest["spec"]["fieldOfTomorrow"] = 1
    with pytest.raises(ConfigError, match="KubeRay is too old") as told:
        driver.create_job(manifest)
    assert re.search(r'unknown field "spec\.fieldOfTomorrow"', str(told.value.got))
    assert driver.job(manifest["metadata"]["name"]) is None
