"""A cluster with overlays/local in it, an S3 server beside it, and the driver's own account: once per session.

Two stories take minutes, most of which they wait for pods: the pipeline, and the retraining that goes on from it. They
run in threads (`beside`) while tests that cannot disturb them use the same cluster. Files run in the order of _FILES;
what stops a server comes last and waits for the stories to end (`nothing_else_runs`).
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.beside import Beside
from tests.cluster.retraining import Retrained, Retraining
from tests.support import cluster_rig, git_server
from tests.support.cluster_jobs import Checkout, credentials, demand
from tests.support.cluster_project import Made, delete_jobs, make_project
from tests.support.git_server import GitServer
from tests.support.s3_rig import S3Server

_FILES = (
    "api",
    "admission",
    "manifests",
    "mlflow",
    "refusals",
    "pipeline",
    "jobs",
    "image",
    "cascade",
    "retrain",
    "outages",
)
_STORIES = ("pipeline", "retraining")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.cluster)
    items.sort(key=lambda item: _place(item.path) if folder in item.path.parents else -1)


def _place(file: Path) -> int:
    return _FILES.index(file.stem.removeprefix("test_"))


@pytest.fixture(scope="session", autouse=True)
def _stories_begin(request: pytest.FixtureRequest) -> None:
    """Start those that a later test will ask for."""
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    for name in _STORIES:
        if name in wanted:
            request.getfixturevalue(name)


@pytest.fixture(scope="session")
def beside() -> Iterator[Beside]:
    with Beside() as found:
        yield found


@pytest.fixture(scope="session")
def nothing_else_runs(beside: Beside) -> None:
    """For tests that stop a server."""
    beside.wait()


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
def driver_environment(s3: S3Server, driver_kubeconfig: Path) -> Iterator[dict[str, str]]:
    """What a driver outside the cluster needs to use overlays/local: everything that is no RCG_ setting of a test.

    Its credentials hold for the tests themselves too, which look into the store and into MLflow.
    """
    settings = {"RCG_PROFILE": str(cluster_rig.K8S / "overlays/local/profile.yaml")}
    found = settings | s3.environment | cluster_rig.client_environment(driver_kubeconfig)
    with credentials(found):
        yield found


@pytest.fixture(scope="session")
def collected(tmp_path_factory: pytest.TempPathFactory, driver_environment: Mapping[str, str]) -> Checkout:
    """A checkout with a finished `collect`, which others are copied from."""
    place = Checkout(tmp_path_factory.mktemp("collected"), driver_environment)
    place.prepare()
    return place


@pytest.fixture
def checkout(tmp_path: Path, driver_environment: Mapping[str, str]) -> Iterator[Callable[..., Checkout]]:
    """Makes checkouts, each with a store of its own. What a failing test left running would starve the next ones."""
    made: list[Checkout] = []

    def make(**more: Any) -> Checkout:
        made.append(Checkout(tmp_path / str(len(made)), driver_environment, **more))
        return made[-1]

    yield make
    for place in made:
        place.clean()


@pytest.fixture(scope="session")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, driver_environment: Mapping[str, str], beside: Beside
) -> "Iterator[Future[Made]]":
    root = tmp_path_factory.mktemp("pipeline") / "checkout"
    future = beside.begin(lambda: make_project(root, driver_environment))
    yield future
    beside.wait()
    if future.exception() is None:
        delete_jobs(future.result().project)


@pytest.fixture(scope="session")
def made(pipeline: "Future[Made]") -> Made:
    """A pipeline that ran on the cluster. Nobody changes its checkout, and it is not alone in its store."""
    return pipeline.result()


@pytest.fixture(scope="session")
def retraining(
    pipeline: "Future[Made]", tmp_path_factory: pytest.TempPathFactory, beside: Beside
) -> "Iterator[Future[Retrained] | None]":
    """None without an ssh server."""
    if git_server.missing():
        yield None
        return
    folder = tmp_path_factory.mktemp("retraining")
    server = GitServer(folder / "git")
    server.start()
    future = beside.begin(lambda: Retraining(pipeline.result(), server, folder).told())
    try:
        yield future
    finally:
        beside.wait()
        server.stop()


@pytest.fixture(scope="session")
def retrained(retraining: "Future[Retrained] | None") -> Retrained:
    """What a CronJob's retrainings came to."""
    demand(git_server.missing())
    assert retraining is not None
    return retraining.result()
