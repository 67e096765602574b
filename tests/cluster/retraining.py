"""The model's life on the cluster, as it happens; test_retrain.py says what has to come of it."""

import io
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageOps

from components.collection.packaged import ScansSource
from components.store import open_store
from tests.support import cluster_rig
from tests.support.cluster_jobs import SYSTEM, fresh_name
from tests.support.cluster_project import ClusterProject, Made
from tests.support.cluster_rig import kubectl, wait_until
from tests.support.git_server import GitServer

CRONJOB = "rcg-retrain"
N_NEW, N_NOISE = 60, 1800


@dataclass(frozen=True)
class State:
    """What there is at one moment."""

    aliases: dict[str, int]
    """Version numbers by alias of the registered model."""
    stages: list[str]
    """The stage of every RayJob so far."""
    main: str
    """Commit of the branch main."""
    journal: dict[str, Any]
    """What is being retrained, or was last; empty before the first time."""


@dataclass(frozen=True)
class Retrained:
    """The story's moments, and what else was seen."""

    first: State
    """The pipeline's model was promoted."""
    grown: State
    """Pictures came, the CronJob fired, its pod was killed, the next one ended."""
    noisy: State
    """Noise came."""
    rolled_back: State
    who_works: str
    """Answer to somebody who retrained at the same time."""
    pod: str
    """The pod that was at work then."""
    n_encoded: int
    """Images that the first retraining encoded."""
    n_commits: int
    """Commits that it made on main."""
    branch: str
    """Commit of the first retraining's own branch."""
    rollback: str
    """What the rollback said."""


class Retraining:
    """The pipeline's checkout behind a git server, and the CronJob that retrains it."""

    def __init__(self, made: Made, server: GitServer, folder: Path) -> None:
        self.pictures, self.server, self.folder = made.pictures, server, folder
        environment = made.project.environment | {"RCG_MLFLOW_EXPERIMENT": fresh_name("retrain")}
        self.project = ClusterProject(made.spare, made.project.uri, environment)

    def told(self) -> Retrained:
        """All of it, in minutes."""
        try:
            return self._told()
        finally:
            kubectl("-n", SYSTEM, "delete", "cronjob", CRONJOB, "--ignore-not-found")  # its jobs go with it
            kubectl("-n", SYSTEM, "delete", "secret", "rcg-git", "--ignore-not-found")
            cluster_rig.apply()

    def _told(self) -> Retrained:
        self._promote()
        first, shards = self._state(), self._shards()
        who_works, pod = self._grow()
        grown, n_encoded = self._state(), self._images_of(self._shards() - shards)
        branch = self.server.git("rev-parse", f"retrain/{grown.journal['key'][:10]}")
        n_commits = int(self.server.git("rev-list", "--count", f"{first.main}..{grown.main}"))
        self._add_noise()
        noisy = self._state()
        rollback = self.project.run("rcg", "rollback")
        return Retrained(first, grown, noisy, self._state(), who_works, pod, n_encoded, n_commits, branch, rollback)

    def _promote(self) -> None:
        """The pipeline's model; from the next one on, more is learned."""
        self.project.run("rcg", "register")
        self.project.run("rcg", "promote", RCG_EXECUTOR="inline")
        _learn_more(self.project.root / "params.yaml")
        self.project.commit()
        self.project.run("git", "push", "-q", str(self.server.repository), "HEAD:main")

    def _grow(self) -> tuple[str, str]:
        """New pictures, and a CronJob that notices; who else retrains is answered by the name of the pod at work."""
        demo, bucket = ScansSource(), open_store(self.pictures)
        keys = [item.key for item in demo.list() if not item.is_metadata][:N_NEW]
        for key in keys:
            picture = ImageOps.mirror(Image.open(io.BytesIO(demo.read(key))).convert("L"))
            bucket.put(f"new-{Path(key).stem}.png", _png(picture))
        before = self._stages()
        self._install()
        self._suspend(False)
        self._until_job("collect", before)
        self._suspend(True)
        who_works, (pod,) = self._retrain_elsewhere(), self._pods()
        self._until_job("encode", before)
        kubectl("-n", SYSTEM, "delete", "pod", pod, "--grace-period=0", "--force")
        self._until_ended("promoted")
        return who_works, pod

    def _add_noise(self) -> None:
        """More noise than pictures; in the CronJob's pod itself, which a small collection needs no RayJobs for."""
        bucket, rng = open_store(self.pictures), np.random.default_rng(0)
        for i in range(N_NOISE):
            bucket.put(f"noise-{i:04d}.png", _png(Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))))
        last = self._journal()["key"]
        self._run_now("noise", RCG_EXECUTOR="inline")
        wait_until(lambda: self._journal()["key"] != last, "a second retraining", 300)
        self._until_ended("refused")

    def _state(self) -> State:
        return State(self._aliases(), self._stages(), self.server.git("rev-parse", "main"), self._journal())

    def _journal(self) -> dict[str, Any]:
        store = open_store(self.project.uri)
        if store.head("retrain/current.json") is None:
            return {}
        found: dict[str, Any] = json.loads(store.get("retrain/current.json"))
        return found

    def _stages(self) -> list[str]:
        return sorted(job["metadata"]["labels"]["rcg/stage"] for job in self.project.jobs())

    def _shards(self) -> set[str]:
        return {i.key for i in open_store(self.project.uri).list("memo/encode") if i.key.endswith("/entry.json")}

    def _images_of(self, entries: set[str]) -> int:
        import pyarrow as pa

        store, keys = open_store(self.project.uri), set[str]()
        for entry in entries:
            data = store.get(json.loads(store.get(entry))["data"])
            keys.update(pa.ipc.open_file(io.BytesIO(data)).read_all()["key"].to_pylist())
        return len(keys)

    def _aliases(self) -> dict[str, int]:
        from mlflow.tracking import MlflowClient

        name = self.project.environment["RCG_MODEL_NAME"]
        aliases = MlflowClient(cluster_rig.MLFLOW_URI).get_registered_model(name).aliases
        return {alias: int(version) for alias, version in aliases.items()}

    def _install(self) -> None:
        """overlays/local with this project's names in an overlay of its own, and the key that may push."""
        files = (("ssh-privatekey", self.server.key), ("known_hosts", self.server.known_hosts))
        secret = kubectl(
            "-n",
            SYSTEM,
            "create",
            "secret",
            "generic",
            "rcg-git",
            "--dry-run=client",
            "-o",
            "yaml",
            *(f"--from-file={name}={path}" for name, path in files),
        )
        kubectl("apply", "--server-side", "-f", "-", stdin=secret)
        names = ("RCG_MLFLOW_EXPERIMENT", "RCG_MODEL_NAME", "RCG_JOB_TTL_S", "RCG_HEAD_MEMORY")
        values = {name: self.project.environment[name] for name in names} | {
            "RCG_STORE": self.project.uri,
            "RCG_SOURCE": self.pictures,
            "GIT_REPOSITORY": self.server.url,
        }
        schedule = {"op": "replace", "path": "/spec/schedule", "value": "* * * * *"}
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(cluster_rig.K8S / "overlays/local", self.folder)],
            "configMapGenerator": [
                {
                    "name": CRONJOB,
                    "namespace": SYSTEM,
                    "behavior": "merge",
                    "literals": [f"{name}={value}" for name, value in values.items()],
                }
            ],
            "patches": [{"target": {"kind": "CronJob", "name": CRONJOB}, "patch": yaml.safe_dump([schedule])}],
        }
        (self.folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        kubectl("apply", "--server-side", "-k", str(self.folder))

    def _suspend(self, wanted: bool) -> None:
        """The switch that the how-to names."""
        patch = json.dumps({"spec": {"suspend": wanted}})
        kubectl("-n", SYSTEM, "patch", "cronjob", CRONJOB, "--field-manager=kubectl", "-p", patch)

    def _run_now(self, name: str, **settings: str) -> None:
        """A job of the CronJob without waiting for the clock, with these settings in its pod."""
        order = ("create", "job", name, f"--from=cronjob/{CRONJOB}", "--dry-run=client", "-o", "json")
        job = json.loads(kubectl("-n", SYSTEM, *order))
        (container,) = job["spec"]["template"]["spec"]["containers"]
        kept = [variable for variable in container["env"] if variable["name"] not in settings]
        container["env"] = kept + [{"name": name, "value": value} for name, value in settings.items()]
        kubectl("-n", SYSTEM, "create", "-f", "-", stdin=json.dumps(job))

    def _pods(self) -> list[str]:
        """Running pods of the CronJob."""
        return kubectl(
            "-n",
            SYSTEM,
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/component=retrain",
            "--field-selector=status.phase=Running",
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ).split()

    def _until_job(self, stage: str, before: list[str]) -> None:
        """Until the stage has one more RayJob than before."""
        wait_until(lambda: self._stages().count(stage) > before.count(stage), f"a RayJob of {stage}", 300)

    def _until_ended(self, end: str) -> None:
        """Until the journal says so and the pod that wrote it is gone."""

        def is_over() -> bool:
            journal = self._journal()
            if journal.get("end") is None:
                return False
            assert journal["end"] == end, journal
            return not self._pods()

        wait_until(is_over, f"a retraining that ends as {end}", 1200)

    def _retrain_elsewhere(self) -> str:
        """What somebody is told who retrains now."""
        clone = self.folder / "clone"
        subprocess.run(["git", "clone", "-q", str(self.server.repository), str(clone)], check=True)
        elsewhere = ClusterProject(clone, self.project.uri, self.project.environment)
        return elsewhere.run("rcg", "retrain", code=75, RCG_LEASE_NAMESPACE=SYSTEM, RCG_SOURCE=self.pictures)


def _learn_more(path: Path) -> None:
    """Enough for noise to do harm."""
    params = yaml.safe_load(path.read_text())
    params["rdm"]["model"] |= {"width": 128, "depth": 3, "time_dim": 64}
    params["pixels"]["model"] |= {"width": 64, "depth": 2}
    for stage, steps in (("rdm", 600), ("pixels", 800)):
        params[stage]["train"] = params[stage]["train"] | {"steps": steps, "log_every": 100, "batch_size": 64}
        params[stage]["train"]["optimizer"] = params[stage]["train"]["optimizer"] | {"lr": 2e-3}
    params["sample"]["rdm"] |= {"steps": 20}
    params["sample"]["pixels"] |= {"steps": 20, "guidance": 0.0}
    params["gate"] |= {"n": 200, "n_bootstrap": 100, "margin": 0.5, "margin_known": 0.5}
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
