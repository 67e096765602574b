"""Captions, a guide and an upsampler on the cluster: their stages are RayJobs, what the pipeline's test runs is not."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from components.collection.source import open_source
from components.guides.config import UNetGuideConfig
from components.store import open_store
from flows.pipeline.table import pipeline
from tests.support.cluster_jobs import SMALL, fresh_name
from tests.support.cluster_project import ClusterProject, delete_jobs
from tests.support.pipelines import upsampler_section

pytestmark = pytest.mark.timeout(1500)

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INLINE = {"RCG_EXECUTOR": "inline"}
ON_CLUSTER = ("text", "guide", "upsampler")
N = 300


def _upload_captioned(uri: str) -> None:
    """Some of the packaged digits; each fifth has no caption."""
    bucket, demo = open_store(uri), open_source("demo")
    rows = list(csv.DictReader(io.StringIO(demo.read("metadata.csv").decode())))[:N]
    told = io.StringIO()
    table = csv.DictWriter(told, ["file_name", "label", "text"])
    table.writeheader()
    for i, row in enumerate(rows):
        bucket.put(row["file_name"], demo.read(row["file_name"]))
        table.writerow(row | {"text": "" if i % 5 == 4 else f"the digit {WORDS[int(row['label'])]}"})
    bucket.put("metadata.csv", told.getvalue().encode())


def _params(root: Path) -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((root / "params.yaml").read_text())
    words = {"kind": "words", "dim": 16, "max_tokens": 4, "seed": 0}
    params["text"] = {"numerics": 1, "encoder": words, "states": False, "joint": None, "bpe": None}
    params["rdm"]["model"]["conditions"] = [{"kind": "text", "port": "vector", "drop_prob": 0.1, "missing": "null"}]
    pixels = params["pixels"]
    guide = UNetGuideConfig.tiny().model_copy(update={"latents": "standardized"}).model_dump(mode="json")
    guide["schedule"] = pixels["model"]["schedule"]
    params["guide"] = {"numerics": 1, "seed": 0, "model": guide, "train": pixels["train"]}
    params["sample"]["pixels"] |= {"guide": {"scale": 2.0}}
    sampling = pixels["preview"]["sampling"]
    params["upsampler"] = upsampler_section(pixels, sampling=sampling, train=pixels["train"])
    return params


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, driver_environment: Mapping[str, str]
) -> Iterator[ClusterProject]:
    pictures = fresh_name("s3://rcg/pictures")
    _upload_captioned(pictures)
    root = tmp_path_factory.mktemp("cascade") / "checkout"
    settings = {"RCG_MLFLOW_URI": "off", "RCG_JOB_TTL_S": "5"}
    project = ClusterProject(root, fresh_name("s3://rcg/test"), {**driver_environment, **SMALL, **settings})
    project.copy_code()
    project.run("rcg", "preset", "use", "smoke")
    params = _params(root)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    project.run("rcg", "plan")
    project.run("rcg", "snapshot", pictures)
    for stage in pipeline(params):
        project.run("rcg", "run", stage, **({} if stage in ON_CLUSTER else INLINE))
    yield project
    delete_jobs(project)


def test_each_ran_as_a_job(project: ClusterProject) -> None:
    jobs = {job["metadata"]["labels"]["rcg/stage"]: job for job in project.jobs()}
    assert sorted(jobs) == sorted(ON_CLUSTER)
    for stage in ON_CLUSTER:
        assert jobs[stage]["status"]["jobDeploymentStatus"] == "Complete"
        assert project.record(stage)["context"]["rayjob_uid"] == jobs[stage]["metadata"]["uid"]


def test_captions_lead_and_a_guide_and_a_cascade_draw(project: ClusterProject, tmp_path: Path) -> None:
    lead = ("sample", "-n", "2", "--text", "the digit three", "--class", "3", "--guide-scale", "3")
    project.run("rcg", *lead, "--large", "--out", str(tmp_path / "large"), **INLINE)
    project.run("rcg", *lead, "--out", str(tmp_path / "small"), **INLINE)
    sizes = []
    for name in ("small", "large"):
        with Image.open(tmp_path / name / "0001.png") as picture:
            sizes.append(picture.size)
    assert sizes == [(8, 8), (16, 16)]
    assert "identical" in project.run("rcg", "verify", str(tmp_path / "large/0001.png"), **INLINE)
