"""The model's life on the cluster: a CronJob retrains when pictures came, is killed, goes on; noise is refused."""

import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps

from components.collection.source import DemoSource
from components.store import open_store
from tests.support import cluster_rig, git_server
from tests.support.cluster_jobs import SYSTEM, demand
from tests.support.cluster_project import ClusterProject, Made
from tests.support.cluster_rig import kubectl, wait_until
from tests.support.git_server import GitServer

pytestmark = pytest.mark.timeout(1800)
CRONJOB = "rcg-retrain"
N_NEW, N_NOISE = 60, 1800


class Story:
    """The pipeline's project behind a git server, and the CronJob that retrains it."""

    def __init__(self, made: Made, server: GitServer, folder: Path) -> None:
        self.project, self.pictures, self.server, self.folder = made.project, made.pictures, server, folder

    @property
    def journal(self) -> dict[str, Any]:
        """What is being retrained, or was last; empty before the first time."""
        store = open_store(self.project.uri)
        if store.head("retrain/current.json") is None:
            return {}
        found: dict[str, Any] = json.loads(store.get("retrain/current.json"))
        return found

    def stages(self) -> list[str]:
        """The stage of every RayJob so far."""
        return sorted(job["metadata"]["labels"]["rcg/stage"] for job in self.project.jobs())

    def shards(self) -> set[str]:
        return {i.key for i in open_store(self.project.uri).list("memo/encode") if i.key.endswith("/entry.json")}

    def champion(self, alias: str = "champion") -> int | None:
        """Number of the version that the alias names."""
        from mlflow.tracking import MlflowClient

        name = self.project.environment["RCG_MODEL_NAME"]
        aliases = MlflowClient(cluster_rig.MLFLOW_URI).get_registered_model(name).aliases
        return int(aliases[alias]) if alias in aliases else None

    def install(self) -> None:
        """overlays/local with this project's names in an overlay of its own, and the key that may push."""
        files = (("ssh-privatekey", self.server.key), ("known_hosts", self.server.known_hosts))
        secret = kubectl(
            "-n", SYSTEM, "create", "secret", "generic", "rcg-git", "--dry-run=client", "-o", "yaml",
            *(f"--from-file={name}={path}" for name, path in files),
        )  # fmt: skip
        kubectl("apply", "--server-side", "-f", "-", stdin=secret)
        names = ("RCG_MLFLOW_EXPERIMENT", "RCG_MODEL_NAME", "RCG_JOB_TTL_S")
        values = {name: self.project.environment[name] for name in names} | {
            "RCG_STORE": self.project.uri, "RCG_SOURCE": self.pictures, "GIT_REPOSITORY": self.server.url,
        }  # fmt: skip
        schedule = {"op": "replace", "path": "/spec/schedule", "value": "* * * * *"}
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(cluster_rig.K8S / "overlays/local", self.folder)],
            "configMapGenerator": [
                {
                    "name": CRONJOB, "namespace": SYSTEM, "behavior": "merge",
                    "literals": [f"{name}={value}" for name, value in values.items()],
                }
            ],
            "patches": [{"target": {"kind": "CronJob", "name": CRONJOB}, "patch": yaml.safe_dump([schedule])}],
        }  # fmt: skip
        (self.folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        kubectl("apply", "--server-side", "-k", str(self.folder))

    def suspend(self, wanted: bool) -> None:
        """The switch that the how-to names."""
        patch = json.dumps({"spec": {"suspend": wanted}})
        kubectl("-n", SYSTEM, "patch", "cronjob", CRONJOB, "--field-manager=kubectl", "-p", patch)

    def run_now(self, name: str, **settings: str) -> None:
        """A job of the CronJob without waiting for the clock, with these settings in its pod."""
        order = ("create", "job", name, f"--from=cronjob/{CRONJOB}", "--dry-run=client", "-o", "json")
        job = json.loads(kubectl("-n", SYSTEM, *order))
        (container,) = job["spec"]["template"]["spec"]["containers"]
        kept = [variable for variable in container["env"] if variable["name"] not in settings]
        container["env"] = kept + [{"name": name, "value": value} for name, value in settings.items()]
        kubectl("-n", SYSTEM, "create", "-f", "-", stdin=json.dumps(job))

    def pods(self) -> list[str]:
        """Running pods of the CronJob."""
        return kubectl(
            "-n", SYSTEM, "get", "pods", "-l", "app.kubernetes.io/component=retrain",
            "--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].metadata.name}",
        ).split()  # fmt: skip

    def ended(self, end: str) -> dict[str, Any]:
        """The journal, once it says so and the pod that wrote it is gone."""

        def is_over() -> bool:
            journal = self.journal
            if journal.get("end") is None:
                return False
            assert journal["end"] == end, journal
            return not self.pods()

        wait_until(is_over, f"a retraining that ends as {end}", 1200)
        return self.journal


@pytest.fixture(scope="module")
def story(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    demand(git_server.missing())
    folder = tmp_path_factory.mktemp("story")
    server = GitServer(folder / "git")
    server.start()
    try:
        yield Story(made, server, folder)
    finally:
        kubectl("-n", SYSTEM, "delete", "cronjob", CRONJOB, "--ignore-not-found")  # its jobs go with it
        kubectl("-n", SYSTEM, "delete", "secret", "rcg-git", "--ignore-not-found")
        cluster_rig.apply()
        server.stop()


def test_1_the_pipelines_model_becomes_the_first_champion(story: Story) -> None:
    project = story.project
    project.run("rcg", "register")
    project.run("rcg", "promote", RCG_EXECUTOR="inline")
    assert story.champion() == 1
    _learn_more_from_now_on(project)
    project.commit()
    project.run("git", "push", "-q", str(story.server.repository), "HEAD:main")


def _learn_more_from_now_on(project: ClusterProject) -> None:
    """Enough for noise to do harm, judged by features that see it."""
    path = project.root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["rdm"]["model"] |= {"width": 128, "depth": 3, "time_dim": 64}
    params["pixels"]["model"] |= {"width": 64, "depth": 2}
    for stage, steps in (("rdm", 600), ("pixels", 800), ("evaluate", 300)):
        params[stage]["train"] = params[stage]["train"] | {"steps": steps, "log_every": 100, "batch_size": 64}
        params[stage]["train"]["optimizer"] = params[stage]["train"]["optimizer"] | {"lr": 2e-3}
    params["evaluate"]["features"] |= {"dim": 8, "width": 32}
    params["sample"]["rdm"] |= {"steps": 20}
    params["sample"]["pixels"] |= {"steps": 20, "guidance": 0.0}
    params["gate"] |= {"n": 200, "n_bootstrap": 100, "margin": 0.5, "margin_known": 0.5}
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def test_2_the_cronjob_fires_its_pod_is_killed_and_the_next_one_goes_on(story: Story) -> None:
    demo, bucket = DemoSource(), open_store(story.pictures)
    keys = [item.key for item in demo.list() if not item.is_metadata][:N_NEW]
    for key in keys:
        picture = ImageOps.mirror(Image.open(io.BytesIO(demo.read(key))).convert("L"))
        bucket.put(f"new-{Path(key).stem}.png", _png(picture))
    before, shards, main = story.stages(), story.shards(), story.server.git("rev-parse", "main")
    story.install()
    story.suspend(False)
    wait_until(lambda: story.stages().count("collect") > before.count("collect"), "a job of the CronJob's pod", 300)
    story.suspend(True)
    _another_one_is_told_who_works(story)
    wait_until(lambda: story.stages().count("encode") > before.count("encode"), "encode's job", 300)
    (pod,) = story.pods()
    kubectl("-n", SYSTEM, "delete", "pod", pod, "--grace-period=0", "--force")
    journal = story.ended("promoted")
    assert journal["n_new"] == N_NEW
    assert (story.champion(), story.champion("previous-champion")) == (2, 1)
    ran = ["collect", "encode", "evaluate", "pixels", "rdm", "sample"]
    assert story.stages() == sorted([*before, *ran]), "each once; encoder and codec were not touched"
    assert _images_of(story, story.shards() - shards) == N_NEW, "only the new images were encoded"
    assert story.server.git("rev-list", "--count", f"{main}..main") == "2", "inputs and results"
    assert story.server.git("rev-parse", "main") == story.server.git("rev-parse", f"retrain/{journal['key'][:10]}")


def _another_one_is_told_who_works(story: Story) -> None:
    clone = story.folder / "clone"
    subprocess.run(["git", "clone", "-q", str(story.server.repository), str(clone)], check=True)
    elsewhere = ClusterProject(clone, story.project.uri, story.project.environment)
    told = elsewhere.run("rcg", "retrain", code=75, RCG_LEASE_NAMESPACE=SYSTEM, RCG_SOURCE=story.pictures)
    assert "a retraining is under way already" in told
    assert story.pods()[0] in told, "who holds the lease"


def _images_of(story: Story, entries: set[str]) -> int:
    import pyarrow as pa

    store, keys = open_store(story.project.uri), set[str]()
    for entry in entries:
        data = store.get(json.loads(store.get(entry))["data"])
        keys.update(pa.ipc.open_file(io.BytesIO(data)).read_all()["key"].to_pylist())
    return len(keys)


def test_3_noise_is_refused_and_the_champion_stays(story: Story) -> None:
    bucket, rng = open_store(story.pictures), np.random.default_rng(0)
    for i in range(N_NOISE):
        bucket.put(f"noise-{i:04d}.png", _png(Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))))
    main, last = story.server.git("rev-parse", "main"), story.journal["key"]
    jobs = story.stages()
    story.run_now("noise", RCG_EXECUTOR="inline")  # in the pod itself: what a small collection needs, and quicker here
    wait_until(lambda: story.journal["key"] != last, "a second retraining", 300)
    story.ended("refused")
    assert story.stages() == jobs
    assert story.champion() == 2
    assert story.server.git("rev-parse", "main") == main


def test_4_rollback_from_outside(story: Story) -> None:
    assert "version 1 again" in story.project.run("rcg", "rollback")
    assert story.champion() == 1


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
