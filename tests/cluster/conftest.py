"""A cluster with overlays/local in it, an S3 server beside it, and the driver's own account: once per session."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import cluster_rig
from tests.support.cluster_jobs import credentials, demand
from tests.support.cluster_project import Made, made_project
from tests.support.s3_rig import S3Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def bare_cluster() -> None:
    """Kubernetes and KubeRay, nothing of ours in it. Skips aloud, or fails where RCG_CLUSTER_REQUIRED=1."""
    demand(cluster_rig.missing())
    cluster_rig.up()


@pytest.fixture(scope="session")
def s3(bare_cluster: None) -> Iterator[S3Server]:
    """The object store of overlays/local. One that ran before goes on running."""
    server = cluster_rig.s3_server()
    was_running = cluster_rig.answers(server.address)
    server.start()
    yield server
    if not was_running:
        server.stop()


@pytest.fixture(scope="session")
def cluster(s3: S3Server) -> None:
    """The whole installation, MLflow answering."""
    cluster_rig.images()
    cluster_rig.apply()


@pytest.fixture(scope="session")
def driver_kubeconfig(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signs in as the driver's service account, with the Roles of k8s/base/rbac.yaml and no others."""
    return cluster_rig.driver_kubeconfig(tmp_path_factory.mktemp("driver") / "kubeconfig")


@pytest.fixture(scope="session")
def driver_environment(s3: S3Server, driver_kubeconfig: Path) -> dict[str, str]:
    """What a driver outside the cluster needs to use overlays/local: everything that is no RCG_ setting of a test."""
    settings = {"RCG_PROFILE": str(cluster_rig.K8S / "overlays/local/profile.yaml")}
    return settings | s3.environment | cluster_rig.client_environment(driver_kubeconfig)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, driver_environment: Mapping[str, str]) -> Iterator[Made]:
    """A pipeline that ran on the cluster. Tests look at it; the retraining at the end goes on from it."""
    root = tmp_path_factory.mktemp("pipeline") / "checkout"
    with credentials(driver_environment), made_project(root, driver_environment) as project:
        yield project
