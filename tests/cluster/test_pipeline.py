"""The whole pipeline on the cluster: pictures in a bucket, every stage a RayJob of two workers, MLflow beside it."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import cluster_rig
from tests.support.cluster_project import Made
from tests.support.cluster_rig import wait_until
from tests.support.pipelines import stages_of

STAGES = stages_of("smoke")

pytestmark = pytest.mark.timeout(2400)
ON_CLUSTER = [name for name in STAGES if name != "bundle"]
INLINE = {"RCG_EXECUTOR": "inline", "RCG_WORKERS": "1", "RCG_MLFLOW_URI": "off", "OMP_NUM_THREADS": "1"}


def test_every_stage_ran_as_a_job_of_two_workers_in_pods_of_its_own(made: Made) -> None:
    jobs = {job["metadata"]["labels"]["rcg/stage"]: job for job in made.jobs}
    assert sorted(jobs) == sorted(ON_CLUSTER)
    assert len(made.jobs) == len(jobs)
    clusters = set()
    for stage in ON_CLUSTER:
        record, job = made.project.record(stage), jobs[stage]
        assert (job["status"]["jobDeploymentStatus"], job["status"]["jobStatus"]) == ("Complete", "SUCCEEDED")
        assert record["context"]["rayjob_uid"] == job["metadata"]["uid"]
        assert record["context"]["ray_cluster"] == job["status"]["rayClusterName"]
        assert record["context"]["git_commit"]
        assert record["world_size"] == 2
        assert record["host"].startswith(job["status"]["rayClusterName"])
        clusters.add(job["status"]["rayClusterName"])
    assert len(clusters) == len(ON_CLUSTER)
    assert "rayjob" not in made.project.record("bundle")["context"]


@pytest.mark.parametrize("pair", [("codec", "encoder"), ("rdm", "pixels")], ids="-".join)
def test_stages_that_do_not_wait_for_each_other_ran_side_by_side(made: Made, pair: tuple[str, str]) -> None:
    first, second = (made.project.record(stage) for stage in pair)
    jobs = {job["metadata"]["labels"]["rcg/stage"]: job for job in made.jobs}
    starts = [jobs[stage]["metadata"]["creationTimestamp"] for stage in pair]
    assert max(starts) < min(jobs[stage]["status"]["endTime"] for stage in pair)
    assert first["started_ms"] < second["ended_ms"]
    assert re.search(rf"^{pair[0]} +\| {pair[0]}: created RayJob", made.told, re.MULTILINE)


def test_a_second_repro_creates_no_job(made: Made) -> None:
    assert "Running stage" not in made.told_again
    assert made.jobs_again == made.jobs


def test_two_workers_make_what_one_makes(made: Made, tmp_path: Path) -> None:
    """Shards and drawn pictures to the bit; losses within a thousandth, as gradients are summed in another order."""
    one = made.project.elsewhere(tmp_path / "one")
    one.run("rcg", "data", "copy", "--from", made.project.uri, "collect", "encoder", "codec", **INLINE)
    for stage in ("encode", "rdm", "pixels"):
        one.run("rcg", "run", stage, **INLINE)
        assert one.record(stage)["world_size"] == 1
    assert one.pointer("encode")["digest"] == made.project.pointer("encode")["digest"]
    for stage in ("rdm", "pixels"):
        losses = [[row["loss"] for row in place.curve(stage)] for place in (one, made.project)]
        assert len(losses[0]) == 4
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    drawn = made.project.elsewhere(tmp_path / "drawn")
    drawn.run("rcg", "data", "copy", "--from", made.project.uri, "codec", "encode", "rdm", "pixels", **INLINE)
    drawn.run("rcg", "run", "sample", **INLINE)
    assert drawn.record("sample")["world_size"] == 1
    assert drawn.pointer("sample")["digest"] == made.project.pointer("sample")["digest"]


def test_mlflow_has_the_runs_with_curves_and_pictures(made: Made) -> None:
    from mlflow.tracking import MlflowClient

    client, environment = MlflowClient(cluster_rig.MLFLOW_URI), made.project.environment

    def finished() -> dict[str, Any]:
        experiment = client.get_experiment_by_name(environment["RCG_MLFLOW_EXPERIMENT"])
        found = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'") if experiment else []
        runs = {run.data.tags.get("rcg.stage"): run for run in found}
        return runs if runs.keys() >= set(STAGES) else {}

    runs = wait_until(finished, "nine finished runs in MLflow", 300)
    for stage in ("encoder", "rdm", "pixels"):
        assert len(client.get_metric_history(runs[stage].info.run_id, "loss")) == 4
    assert runs["evaluate"].data.metrics["fd"] > 0
    pictures = [file.path for file in client.list_artifacts(runs["sample"].info.run_id, "artifact/pictures")]
    assert "artifact/pictures/grid.png" in pictures


def test_the_registered_version_samples_outside_of_the_cluster(made: Made, tmp_path: Path) -> None:
    project = made.project
    model = f"models:/{project.environment['RCG_MODEL_NAME']}/1"
    project.run("rcg", "sample", "--model", model, "--out", str(tmp_path / "drawn"), "-n", "4")
    assert (tmp_path / "drawn/grid.png").stat().st_size > 100
