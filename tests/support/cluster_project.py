"""A checkout whose stages run on the cluster, and the one that a session's tests share."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.collection.source import open_source
from components.store import open_store
from flows.executors.kuberay.manifest import store_key
from tests.support import cluster_rig
from tests.support.cluster_jobs import JOBS, fresh_name
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
    pictures: str
    """URI of the bucket's folder that the pictures are in."""
    told: str


@contextmanager
def made_project(root: Path, environment: Mapping[str, str]) -> Iterator[Made]:
    """`rcg repro --parallel` of the smoke preset in root, its pictures uploaded first."""
    pictures = fresh_name("s3://rcg/pictures")
    bucket, demo = open_store(pictures), open_source("demo")
    for item in demo.list():
        bucket.put(item.key, demo.read(item.key))
    settings = {
        "RCG_MLFLOW_URI": cluster_rig.MLFLOW_URI, "RCG_MLFLOW_EXPERIMENT": fresh_name("pipeline"),
        "RCG_MODEL_NAME": fresh_name("rcg"), "RCG_WORKERS": "2", "RCG_CHECKPOINT_EVERY": "10", "RCG_JOB_TTL_S": "5",
        "RCG_WORKER_CPUS": "150m", "RCG_WORKER_MEMORY": "1500Mi", "RCG_HEAD_MEMORY": "2500Mi",
    }  # fmt: skip
    project = ClusterProject(root, fresh_name("s3://rcg/test"), {**environment, **settings})
    project.copy_code()
    project.run("rcg", "preset", "use", "smoke")
    project.run("rcg", "snapshot", pictures)
    project.commit()
    yield Made(project, pictures, project.run("rcg", "repro", "--parallel"))
    kubectl("-n", JOBS, "delete", "rayjobs", "-l", f"rcg/store={store_key(project.uri)}", "--wait=false")
