"""One training to which everything happens at once: drivers, a worker, the API server, S3, MLflow and its database.

Starting Ray takes longer than most tests, so one job goes through all of it. Its weights have to be those of the
pipeline's encoder, which nothing happened to.
"""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster import admission
from tests.cluster.mlflow_api import Note, Server
from tests.support import cluster_rig
from tests.support.cluster_jobs import (
    JOBS,
    SMALL,
    Checkout,
    Done,
    api_server_stopped,
    fresh_name,
    mlflow_stopped,
    sleep_until,
)
from tests.support.cluster_project import ENCODER_STEPS, Made
from tests.support.cluster_rig import kubectl, wait_until
from tests.support.s3_rig import S3Server

pytestmark = pytest.mark.timeout(1500)
CHECKPOINT_EVERY = 100
TRAINING = SMALL | {"RCG_WORKERS": "2", "RCG_CHECKPOINT_EVERY": str(CHECKPOINT_EVERY)}


@dataclass(frozen=True)
class Survived:
    """A run that many things happened to."""

    place: Checkout
    killed: str
    """What the driver said that was killed."""
    done: Done
    """What the one said that stayed, and how it ended."""
    jobs: list[dict[str, Any]]
    note: Note
    """What was in MLflow before."""


@pytest.fixture(scope="module")
def survived(
    tmp_path_factory: pytest.TempPathFactory,
    driver_environment: dict[str, str],
    collected: Checkout,
    s3: S3Server,
    nothing_else_runs: None,
) -> Iterator[Survived]:
    """MLflow and its database down; two drivers at once, one of them killed with -9; a worker's pod deleted; the API
    server stopped for 60 s, S3 for 30 s of those."""
    settings = TRAINING | {"RCG_MLFLOW_URI": cluster_rig.MLFLOW_URI, "RCG_MLFLOW_EXPERIMENT": fresh_name("jobs")}
    place = Checkout(tmp_path_factory.mktemp("survived"), driver_environment, settings, ENCODER_STEPS)
    place.prepare_as(collected)
    with Server() as server:
        note = Note.written(server)
    with mlflow_stopped():
        first, second = place.start("run", "encoder"), place.start("run", "encoder")
        place.until_step(1, second)
        first.send(signal.SIGKILL)
        third = place.start("run", "encoder")
        _lose_a_worker(place)
        third.until("attached to RayJob")
        start = time.monotonic()
        with api_server_stopped():
            sleep_until(start + 10)
            s3.stop()
            sleep_until(start + 40)
            s3.start()
            sleep_until(start + 60)
        done = second.wait(900)
        assert third.wait(60).code == 0, third.text
    yield Survived(place, first.text, done, place.jobs(), note)
    place.clean()


def _lose_a_worker(place: Checkout) -> None:
    """It saves a checkpoint before it ends; training goes on with another one, from there."""
    wait_until(lambda: place.checkpoint() >= CHECKPOINT_EVERY, "a checkpoint", 400)
    lost = place.pods("worker")[-1]
    kubectl("-n", JOBS, "delete", "pod", lost, "--wait=false")
    wait_until(lambda: place.checkpoint() % CHECKPOINT_EVERY, "the checkpoint before the pod's end", 60)
    saved = place.checkpoint()
    assert saved < ENCODER_STEPS - 2 * CHECKPOINT_EVERY, "too late to be a loss"
    wait_until(lambda: place.checkpoint() > saved, "a checkpoint after that", 400)
    assert lost not in place.pods("worker")
    assert len(place.pods("worker")) == 2


def test_whatever_happens_there_is_one_job_of_one_attempt(survived: Survived) -> None:
    assert survived.done.code == 0, survived.done.text
    assert [job["status"]["jobDeploymentStatus"] for job in survived.jobs] == ["Complete"]
    created = [text.count("created RayJob") for text in (survived.killed, survived.done.text)]
    assert sorted(created) == [0, 1]
    run = survived.place.read("encoder", "run.json")
    assert run["attempt"] == 1
    assert run["world_size"] == 2
    assert run["context"]["rayjob_uid"] == survived.jobs[0]["metadata"]["uid"]
    assert run["context"]["image"] == cluster_rig.THIN
    assert run["context"]["ray_cluster"] == survived.jobs[0]["status"]["rayClusterName"]


def test_the_weights_are_those_of_a_training_that_nothing_happened_to(survived: Survived, made: Made) -> None:
    assert made.project.record("encoder")["world_size"] == 2
    mine = survived.place.read("encoder", "manifest.json")["files"]["weights.safetensors"]["sha256"]
    theirs = made.project.manifest("encoder")["files"]["weights.safetensors"]["sha256"]
    assert mine == theirs


def test_the_driver_waited_for_the_api_server(survived: Survived) -> None:
    assert "API server does not answer" in survived.done.text
    assert "an answer again after" in survived.done.text


def test_mlflow_is_told_later_by_the_next_command(survived: Survived) -> None:
    from mlflow.tracking import MlflowClient

    place = survived.place
    again = place.rcg("run", "encoder")
    assert again.code == 0, again.text
    assert "already done" in again.text
    assert len(place.jobs()) == 1
    client = MlflowClient(cluster_rig.MLFLOW_URI)

    def told() -> list[float]:
        experiment = client.get_experiment_by_name(place.settings["RCG_MLFLOW_EXPERIMENT"])
        runs = client.search_runs([experiment.experiment_id], "tags.`rcg.stage` = 'encoder'") if experiment else []
        history = client.get_metric_history(runs[0].info.run_id, "loss") if runs else []
        return [point.step for point in history] if runs and runs[0].info.status == "FINISHED" else []

    steps = wait_until(told, "the run in MLflow", 400)
    assert len(steps) >= 50
    assert max(steps) == ENCODER_STEPS


def test_data_outlive_mlflow_and_its_database(survived: Survived, s3: S3Server) -> None:
    with Server() as server:
        assert survived.note.read(server) == [("loss", 0.25, 3)]
        assert survived.note.attached(server) == b"kept"
    assert "s3_PutObject" in s3.requests()


@pytest.mark.usefixtures("cluster", "nothing_else_runs")
def test_fields_of_a_later_kuberay_are_refused() -> None:
    """The CRD gets them for a moment: the policy names what is allowed, so it need not know them."""
    later = ("networkPolicy", "ingressOptions", "tlsOptions", "historyServerOptions", "never-heard-of")
    version = cluster_rig.resource("crd", "rayjobs.ray.io", "")["spec"]["versions"]
    at = [each["name"] for each in version].index("v1")
    folder = f"/spec/versions/{at}/schema/openAPIV3Schema/properties/spec/properties/rayClusterSpec/properties"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

    def patch(verb: str, **more: object) -> None:
        operations = [{"op": verb, "path": f"{folder}/{name}", **more} for name in later]
        kubectl("patch", "crd", "rayjobs.ray.io", "--type=json", "-p", json.dumps(operations))

    def answer(name: str) -> str:
        job = admission.made()
        job["spec"]["rayClusterSpec"][name] = {"enabled": True}
        return server.create(job)

    server = admission.Server()
    assert "unknown field" in answer(later[0])
    patch("add", value=anything)
    try:
        wait_until(lambda: "unknown field" not in answer(later[0]), "the field in the API", 30)
        for name in later:
            assert f"fields that `rcg run` does not set: rayClusterSpec.{name}" in answer(name)
    finally:
        patch("remove")
