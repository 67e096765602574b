"""Stages as RayJobs on a real cluster, and all that may happen to them meanwhile.

Starting Ray takes longer than most tests, so one job has many things happen to it, and its weights are what the jobs
that lose a worker or the head are compared with.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import cluster_rig
from tests.support.cluster_jobs import (
    JOBS,
    Checkout,
    Done,
    api_server_stopped,
    credentials,
    fresh_name,
    mlflow_stopped,
    sleep_until,
)
from tests.support.cluster_rig import kubectl, wait_until
from tests.support.s3_rig import S3Server

pytestmark = pytest.mark.timeout(1500)
STEPS, CHECKPOINT_EVERY = 1200, 100
TRAINING = {"RCG_WORKERS": "2", "RCG_CHECKPOINT_EVERY": str(CHECKPOINT_EVERY)}


@pytest.fixture(scope="module", autouse=True)
def _credentials(driver_environment: Mapping[str, str]) -> Iterator[None]:
    with credentials(driver_environment):
        yield


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


def weights(place: Checkout) -> str:
    """sha256 of the trained encoder."""
    return str(place.read("encoder", "manifest.json")["files"]["weights.safetensors"]["sha256"])


@dataclass(frozen=True)
class Survived:
    """A run that many things happened to."""

    place: Checkout
    killed: str
    done: Done
    jobs: list[dict[str, Any]]


@pytest.fixture(scope="module")
def survived(
    tmp_path_factory: pytest.TempPathFactory, driver_environment: dict[str, str], s3: S3Server
) -> Iterator[Survived]:
    """Two drivers at once, one killed with -9; MLflow down; the API server stopped for 60 s, S3 for 30 s of those."""
    settings = TRAINING | {"RCG_MLFLOW_URI": cluster_rig.MLFLOW_URI, "RCG_MLFLOW_EXPERIMENT": fresh_name("jobs")}
    place = Checkout(tmp_path_factory.mktemp("survived"), driver_environment, settings, STEPS)
    place.prepare()
    with mlflow_stopped():
        first, second = place.start("run", "encoder"), place.start("run", "encoder")
        place.until_step(1, second)
        first.send(signal.SIGKILL)
        third = place.start("run", "encoder")
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
    jobs = place.jobs()
    yield Survived(place, first.text, done, jobs)
    place.clean()


def test_whatever_happens_to_drivers_and_servers_there_is_one_job(survived: Survived) -> None:
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

    steps = wait_until(told, "the run in MLflow", 120)
    assert len(steps) >= 50
    assert max(steps) == STEPS


def test_a_deleted_worker_is_replaced_and_the_weights_are_the_same(
    survived: Survived, checkout: Callable[..., Checkout]
) -> None:
    place = checkout(settings=TRAINING, steps=STEPS)
    place.prepare()
    driver = place.start("run", "encoder")
    wait_until(lambda: place.checkpoint() >= CHECKPOINT_EVERY, "a checkpoint", 400)
    lost = place.pods("worker")[-1]
    kubectl("-n", JOBS, "delete", "pod", lost, "--wait=false")
    wait_until(lambda: place.checkpoint() % CHECKPOINT_EVERY, "the checkpoint before the pod's end", 60)
    done = driver.wait(900)
    assert done.code == 0, done.text
    assert len(place.jobs()) == 1
    assert place.read("encoder", "run.json")["attempt"] == 1
    assert weights(place) == weights(survived.place)


def test_after_a_lost_head_and_a_killed_command_the_next_attempt_goes_on_from_the_checkpoint(
    checkout: Callable[..., Checkout],
) -> None:
    """The operator makes a new head and submits again, within one RayJob; a command that dies ends its RayJob.

    The old workers train on until the new attempt takes the lease, so this training is long; it is not let finish.
    """
    place = checkout(settings=TRAINING, steps=100_000)
    place.prepare()
    driver = place.start("run", "encoder")
    wait_until(lambda: place.checkpoint() >= CHECKPOINT_EVERY, "a checkpoint", 400)
    kubectl("-n", JOBS, "delete", "pod", place.pods("head")[0], "--wait=false")
    wait_until(lambda: place.checkpoint(attempt=2), "a checkpoint of the second attempt", 400)
    assert place.checkpoint(attempt=2, oldest=True) > place.checkpoint(attempt=1)
    kubectl("-n", JOBS, "exec", place.pods("head")[0], "--", "bash", "-c", KILL_COMMAND)
    wait_until(lambda: place.checkpoint(attempt=3), "a checkpoint of the third attempt", 400)
    assert place.checkpoint(attempt=3, oldest=True) > place.checkpoint(attempt=2)
    assert [job["metadata"]["name"].rpartition("-")[2] for job in place.jobs()] == ["a1", "a3"]
    assert "was lost, the next attempt goes on" in driver.text
    driver.send(signal.SIGTERM)
    done = driver.wait(60)
    assert done.code == 128 + signal.SIGTERM
    assert "To end it: rcg cancel encoder" in done.text
    [canceled] = place.rcg("cancel").text.splitlines()
    assert canceled.startswith(f"encoder: deleted RayJob {place.jobs()[-1]['metadata']['name'][:-2]}")


KILL_COMMAND = """
for process in /proc/[0-9]*; do
    if tr '\\0' ' ' < $process/cmdline | grep -q "bin/rcg [j]ob"; then kill -9 ${process#/proc/}; fi
done
"""


def keys(place: Checkout) -> list[str]:
    return [info.key for info in place.store.list(place.run_prefix("encoder"))]


def test_an_entrypoint_that_fails_is_told_once(checkout: Callable[..., Checkout]) -> None:
    place = checkout()
    place.prepare()
    run = place.read("collect", "run.json")
    key, data = run["keys"]["base.json"], place.store.get(run["keys"]["base.json"])
    place.store.put(key, data[:-2] + b" " + data[-1:])  # as long as before, so that only its digest tells
    done = place.rcg("run", "encoder")
    assert done.code == 3, done.text
    assert "base.json of runs/collect" in done.text
    assert "does not match its digest" in done.text
    [job] = place.jobs()
    assert place.read("encoder", f"jobs/{job['metadata']['name']}.failure.json")["failure_class"] == "data"
    assert place.read("encoder", "attempts/1.failure.json")["failure_class"] == "data"
    assert not any(key.endswith("manifest.json") for key in keys(place))


def test_jobs_that_never_start(checkout: Callable[..., Checkout]) -> None:
    """Three drivers at once, no Ray: no room, no such image, canceled while it waits."""
    places = [checkout() for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(Checkout.prepare, places))
    start = time.monotonic()
    full = places[0].start("run", "encoder", RCG_WORKER_CPUS="3", RCG_PRE_RUNNING_DEADLINE_S="40")
    absent = places[1].start("run", "encoder", RCG_IMAGE="localhost/rcg:absent")
    waiting = places[2].start("run", "encoder", RCG_WORKER_CPUS="3")
    waiting.until("Insufficient cpu")
    told = places[2].rcg("cancel", "encoder")
    assert "encoder: deleted RayJob rcg-encoder-" in told.text
    canceled, unpulled, no_room = waiting.wait(60), absent.wait(90), full.wait(120)
    assert time.monotonic() - start < 200
    assert canceled.code == 75, canceled.text
    assert "was deleted" in canceled.text
    assert unpulled.code == 2, unpulled.text
    assert "the image cannot be pulled: localhost/rcg:absent" in unpulled.text
    assert no_room.code == 75, no_room.text
    assert "the cluster had no room" in no_room.text
    assert "Insufficient cpu" in no_room.text
    assert [len(place.jobs()) for place in places] == [1, 0, 0]


@dataclass(frozen=True)
class Wrong:
    """Something that is wrong from the start."""

    settings: Mapping[str, str]
    words: str
    code: int = 2


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong({"RCG_KUBE_NAMESPACE": "rcg-elsewhere"}, "rcg-elsewhere"),
        Wrong({"RCG_KUBE_CONTEXT": "nowhere"}, "no access to a Kubernetes cluster"),
        Wrong({"RCG_IMAGE": "registry.example.com/other:1"}, "images come from the repository"),
        Wrong({"RCG_SERVICE_ACCOUNT": "default"}, "runs as service account rcg-worker"),
        Wrong({"RCG_IMAGE_BY_TAG": "false"}, "not pinned"),
        Wrong({"RCG_DEVICE": "cuda"}, "no GPU"),
        Wrong({"RCG_WORKERZ": "2"}, "RCG_WORKERS"),
    ],
    ids=lambda wrong: next(iter(wrong.settings)),
)
def test_what_is_wrong_from_the_start_creates_nothing(checkout: Callable[..., Checkout], wrong: Wrong) -> None:
    place = checkout()
    before = kubectl("-n", JOBS, "get", "rayjobs", "-o", "name")
    done = place.rcg("run", "collect", **wrong.settings)
    assert done.code == wrong.code, done.text
    assert wrong.words in done.text
    assert "Traceback" not in done.text
    assert kubectl("-n", JOBS, "get", "rayjobs", "-o", "name") == before


def test_bad_params_create_nothing(checkout: Callable[..., Checkout]) -> None:
    place = checkout()
    text = (place.root / "params.yaml").read_text()
    (place.root / "params.yaml").write_text(text.replace("max_reject_share: 0.02", "max_reject_share: many"))
    before = kubectl("-n", JOBS, "get", "rayjobs", "-o", "name")
    done = place.rcg("run", "collect")
    assert done.code == 2, done.text
    assert "max_reject_share" in done.text
    assert kubectl("-n", JOBS, "get", "rayjobs", "-o", "name") == before
    assert list(place.store.list("runs")) == []


def test_an_api_server_that_is_not_there(checkout: Callable[..., Checkout], tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    place = checkout()
    text = Path(place.environment["KUBECONFIG"]).read_text()
    kubeconfig.write_text(text.replace(f"{cluster_rig.HOST}:6443", "127.0.0.1:9"))
    done = place.rcg("run", "collect", KUBECONFIG=str(kubeconfig))
    assert done.code == 75, done.text
    assert "the Kubernetes API server does not answer" in done.text
    kubeconfig.write_text(text.replace("token: ", "token: x"))
    done = place.rcg("run", "collect", KUBECONFIG=str(kubeconfig))
    assert done.code == 2, done.text
    assert "does not accept the credentials" in done.text


def test_an_account_without_a_right(checkout: Callable[..., Checkout], tmp_path: Path) -> None:
    kubeconfig = cluster_rig.kubeconfig_of("rcg-worker", JOBS, tmp_path / "kubeconfig")
    done = checkout().rcg("run", "collect", KUBECONFIG=str(kubeconfig))
    assert done.code == 2, done.text
    assert "the account may not list rayjobs in namespace rcg-jobs" in done.text
