"""A checkout whose stages run on the cluster, and the one that a session's tests share."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.collection.source import open_source
from components.store import open_store
from flows.executors.kuberay.manifest import store_key
from tests.support import cluster_rig
from tests.support.cluster_jobs import JOBS, SMALL, fresh_name
from tests.support.cluster_rig import kubectl
from tests.support.projects import Project


class ClusterProject(Project):
    """A checkout whose store is a bucket; the environment of a driver comes with every command."""

    timeout_s = 2100

    def __init__(self, root: Path, store: str, environment: Mapping[str, str]) -> None:
        super().__init__(root, Path())
        self.uri, self.environment = store, dict(environment)

    def run(self, *command: str, code: int = 0, **env: str) -> str:
        return super().run(*command, code=code, **self.environment | {"RCG_STORE": self.uri} | env)

    def pointer(self, stage: str) -> dict[str, Any]:
        """artifacts/<stage>/run.json: which run it is."""
        found: dict[str, Any] = json.loads((self.root / "artifacts" / stage / "run.json").read_text())
        return found

    def record(self, stage: str) -> dict[str, Any]:
        """How the run was made."""
        found: dict[str, Any] = json.loads(open_store(self.uri).get(f"{self.pointer(stage)['prefix']}/run.json"))
        return found

    def manifest(self, stage: str) -> dict[str, Any]:
        """What the run made."""
        found: dict[str, Any] = json.loads((self.root / "artifacts" / stage / "manifest.json").read_text())
        return found

    def curve(self, stage: str) -> list[dict[str, float]]:
        found: list[dict[str, float]] = json.loads((self.root / "artifacts" / stage / "plots/loss.json").read_text())
        return found

    def elsewhere(self, root: Path) -> "ClusterProject":
        """The same checkout with a store that is empty."""
        shutil.copytree(self.root, root)
        return ClusterProject(root, fresh_name("s3://rcg/test"), self.environment)

    def jobs(self) -> list[dict[str, Any]]:
        selector = f"rcg/store={store_key(self.uri)}"
        found: list[dict[str, Any]] = json.loads(kubectl("-n", JOBS, "get", "rayjobs", "-l", selector, "-o", "json"))[
            "items"
        ]
        return found


@dataclass(frozen=True)
class Made:
    """What a session's tests look at and go on from."""

    project: ClusterProject
    spare: Path
    """The checkout once more, for those who change it."""
    pictures: str
    """URI of the bucket's folder that the pictures are in."""
    told: str
    told_again: str
    """What `rcg repro` said the first time and the second time."""
    jobs: list[dict[str, Any]]
    jobs_again: list[dict[str, Any]]
    """RayJobs after the first time and after the second time."""


ENCODER_STEPS = 600
"""Enough for a training to be disturbed in; the pipeline's is the undisturbed one that others are compared with."""


def give_sight(params: dict[str, Any]) -> None:
    """A judge that tells noise from digits: on the word of the smoke preset's, which is blind, nothing is promoted."""
    evaluate = params["evaluate"]
    evaluate["train"] = evaluate["train"] | {"steps": 300, "log_every": 100, "batch_size": 64}
    evaluate["train"]["optimizer"] = evaluate["train"]["optimizer"] | {"lr": 2e-3}
    evaluate["features"] |= {"dim": 8, "width": 32}


def make_project(root: Path, environment: Mapping[str, str]) -> Made:
    """`rcg repro --parallel` of the smoke preset in root, its pictures uploaded first, twice; then `rcg register`."""
    pictures = fresh_name("s3://rcg/pictures")
    bucket, demo = open_store(pictures), open_source("demo")
    for item in demo.list():
        bucket.put(item.key, demo.read(item.key))
    settings = {
        "RCG_MLFLOW_URI": cluster_rig.MLFLOW_URI,
        "RCG_MLFLOW_EXPERIMENT": fresh_name("pipeline"),
        "RCG_MODEL_NAME": fresh_name("rcg"),
        "RCG_WORKERS": "2",
        "RCG_JOB_TTL_S": "5",
    }
    project = ClusterProject(root, fresh_name("s3://rcg/test"), {**environment, **SMALL, **settings})
    project.copy_code()
    project.run("rcg", "preset", "use", "smoke")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["encoder"]["train"] = params["encoder"]["train"] | {"steps": ENCODER_STEPS, "log_every": ENCODER_STEPS // 4}
    give_sight(params)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    project.run("rcg", "snapshot", pictures)
    project.commit()
    told, jobs = project.run("rcg", "repro", "--parallel"), project.jobs()
    told_again, jobs_again = project.run("rcg", "repro"), project.jobs()
    project.run("rcg", "register")
    spare = root.with_name("spare")
    shutil.copytree(root, spare)
    return Made(project, spare, pictures, told, told_again, jobs, jobs_again)


def delete_jobs(project: ClusterProject) -> None:
    kubectl("-n", JOBS, "delete", "rayjobs", "-l", f"rcg/store={store_key(project.uri)}", "--wait=false")
