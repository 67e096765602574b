"""The README's way on a cluster: pictures and store in a bucket, every stage a RayJob of two workers, MLflow beside."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.data.source import open_source
from flows.artifact import canonical_json
from flows.executors.kuberay.manifest import store_key
from flows.pipeline import STAGES
from tests import cluster_rig
from tests.cluster_jobs import JOBS
from tests.cluster_rig import MLFLOW_URI, kubectl
from tests.projects import Project
from tests.s3_rig import S3Server

pytestmark = pytest.mark.timeout(2400)
ON_CLUSTER = [name for name in STAGES if name != "bundle"]
SAME_LOSS = 1e-4
"""Relative difference of a loss between one worker and two: the order of sums, grown over the steps."""


@dataclass
class Driven(Project):
    """A checkout whose driver is the cluster's account; its stages run there with two workers."""

    root: Path
    store: Path
    environment: Mapping[str, str]
    store_uri: str
    timeout_s: int = 1800
    settings: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, code: int = 0, **env: str) -> str:
        mine = {"RCG_STORE": self.store_uri, "RCG_WORKERS": "2", "RCG_MLFLOW_URI": MLFLOW_URI} | self.settings
        return super().run(*command, code=code, **(dict(self.environment) | mine | env))

    def jobs(self) -> list[dict[str, Any]]:
        selector = f"rcg/store={store_key(self.store_uri)}"
        items: list[dict[str, Any]] = json.loads(kubectl("-n", JOBS, "get", "rayjobs", "-l", selector, "-o", "json"))[
            "items"
        ]
        return items

    def manifest(self, stage: str) -> bytes:
        return (self.root / "artifacts" / stage / "manifest.json").read_bytes()

    def losses(self, stage: str) -> dict[int, float]:
        records = json.loads((self.root / f"artifacts/{stage}/plots/loss.json").read_text())
        return {record["step"]: record["loss"] for record in records}


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, driver_environment: dict[str, str], s3: S3Server
) -> Iterator[Driven]:
    """All nine stages, once."""
    base = tmp_path_factory.mktemp("cluster")
    name = base.parent.name + base.name
    client, demo = s3.client(), open_source("demo")
    for item in demo.list():
        client.put_object(Bucket="rcg", Key=f"{name}/pictures/{item.key}", Body=demo.read(item.key))
    made = Driven(base / "project", base / "unused", driver_environment, f"s3://rcg/{name}/store")
    made.settings["RCG_MLFLOW_EXPERIMENT"] = made.settings["RCG_MODEL_NAME"] = f"rcg-{name}"
    made.copy_code()
    made.run("rcg", "preset", "use", "smoke")
    made.run("rcg", "snapshot", f"s3://rcg/{name}/pictures")
    (base / "repro.txt").write_text(made.run("rcg", "repro", "--parallel"))
    yield made
    selector = f"rcg/store={store_key(made.store_uri)}"
    kubectl("-n", JOBS, "delete", "rayjobs", "-l", selector, "--wait=false", "--ignore-not-found")


def test_every_stage_ran_once_in_pods_of_its_own(project: Driven) -> None:
    jobs = {job["metadata"]["labels"]["rcg/stage"]: job for job in project.jobs()}
    assert len(project.jobs()) == len(jobs)
    assert sorted(jobs) == sorted(ON_CLUSTER)
    assert {job["status"]["jobStatus"] for job in jobs.values()} == {"SUCCEEDED"}
    assert len({job["status"]["rayClusterName"] for job in jobs.values()}) == len(ON_CLUSTER)
    for stage in STAGES:
        assert project.manifest(stage)
    assert not (project.root / ".rcg/store").exists()


def test_rdm_and_pixels_ran_side_by_side(project: Driven) -> None:
    times = {job["metadata"]["labels"]["rcg/stage"]: job["status"] for job in project.jobs()}
    assert times["rdm"]["startTime"] < times["pixels"]["endTime"]
    assert times["pixels"]["startTime"] < times["rdm"]["endTime"]


def test_a_second_repro_creates_no_job(project: Driven) -> None:
    before = [job["metadata"]["uid"] for job in project.jobs()]
    assert "up to date" in project.run("rcg", "repro")
    (project.root / "dvc.lock").unlink()
    assert project.run("rcg", "repro").count("already done") == len(STAGES)
    assert [job["metadata"]["uid"] for job in project.jobs()] == before


def alone(project: Driven, base: Path, *, given: tuple[str, ...], made: tuple[str, ...]) -> Driven:
    """Some stages again, in one process of this machine and another store, from parents that the cluster made."""
    here = Driven(base / "project", base / "unused", project.environment, str(base / "store"))
    here.settings = {"RCG_PROFILE": "", "RCG_EXECUTOR": "inline", "RCG_WORKERS": "1", "RCG_MLFLOW_URI": "off"}
    here.settings["OMP_NUM_THREADS"] = "1"  # a pod has less than two cores, hence one thread
    shutil.copytree(project.root, here.root, ignore=shutil.ignore_patterns("artifacts", ".rcg"))
    for stage in given:
        target = here.root / "artifacts" / stage
        target.mkdir(parents=True)
        for name in ("manifest.json", "run.json"):
            (target / name).write_bytes((project.root / "artifacts" / stage / name).read_bytes())
    here.run("rcg", "data", "copy", "--from", project.store_uri)
    for stage in made:
        here.run("rcg", "run", stage)
    return here


def test_two_workers_learn_what_one_learns(project: Driven, tmp_path: Path) -> None:
    one = alone(project, tmp_path, given=("codec", "encode"), made=("rdm", "pixels"))
    for stage in ("rdm", "pixels"):
        losses = one.losses(stage)
        assert len(losses) >= 2
        assert project.losses(stage) == pytest.approx(losses, rel=SAME_LOSS)


def test_two_workers_draw_and_encode_the_bits_of_one(project: Driven, tmp_path: Path) -> None:
    given = ("collect", "encoder", "codec", "encode", "rdm", "pixels")
    one = alone(project, tmp_path / "sample", given=given, made=("sample",))
    assert one.manifest("sample") == project.manifest("sample")
    one = alone(project, tmp_path / "encode", given=("collect", "encoder", "codec"), made=("encode",))
    assert one.manifest("encode") == project.manifest("encode")


def test_mlflow_in_the_cluster_shows_curves_and_pictures(project: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    for name, value in project.environment.items():
        monkeypatch.setenv(name, value) if not name.startswith("RCG_") else None
    project.run("rcg", "register")  # waits for what the drivers' writers have not told yet
    client = MlflowClient(MLFLOW_URI)
    experiment = client.get_experiment_by_name(project.settings["RCG_MLFLOW_EXPERIMENT"])
    assert experiment is not None
    runs = {run.data.tags.get("rcg.stage"): run for run in client.search_runs([experiment.experiment_id])}
    assert set(STAGES) <= runs.keys()
    for stage in ("encoder", "rdm", "pixels"):
        assert len(client.get_metric_history(runs[stage].info.run_id, "loss")) >= 2
    assert client.list_artifacts(runs["pixels"].info.run_id, "images")


def test_the_registered_version_samples_by_alias_from_outside(project: Driven, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    model = f"models:/{project.settings['RCG_MODEL_NAME']}@challenger"
    project.run("rcg", "sample", "-n", "4", "--seed", "3", "--model", model, "--out", str(out), RCG_EXECUTOR="inline")
    assert len(list(out.rglob("*.png"))) >= 4


def test_where_a_version_ran_is_told(project: Driven) -> None:
    told = json.loads(project.run("rcg", "lineage", "rdm", "--json"))
    text = canonical_json(told).decode()
    names = [job["metadata"]["name"] for job in project.jobs()]
    assert any(name in text for name in names if "-rdm-" in name)
    assert cluster_rig.THIN in text
