"""A project whose store holds whole pipelines that nobody ran: every stage's run with params, records and small files.

Version k of the model has its own rdm, pixels, sample, evaluate and bundle; what is above is shared.
"""

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.images.pictures import grid, png_bytes
from components.store import Prefix, open_store
from components.store.base import Store
from flows.execution.project import Project
from flows.identity.artifact import SCHEMA, FileEntry, canonical_json, digest_of, readable_json
from flows.identity.fingerprint import LOCK, Identity
from flows.runs.records import CommittedRun, InputSpec, RunRecord, Spec, commit
from flows.settings import Settings
from tests.support.pipelines import stages_of

STAGES = stages_of("smoke")

HOUR_MS = 3_600_000
START_MS = 1_750_000_000_000
OWN = ("rdm", "pixels", "sample", "evaluate", "bundle")
CHUNKS = [{"name": "c00000", "count": 512, "sha256": "a" * 64}, {"name": "c00001", "count": 40, "sha256": "b" * 64}]
CONTEXT = {
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
    "git_dirty": "false",
    "image": "registry.example/rcg@sha256:" + "c" * 64,
    "rayjob": "rcg-stage-0123456789-abcd-a1",
}


def some_pictures(n: int, seed: int, noise: float = 0.2) -> np.ndarray:
    """Shapes: (n, 8, 8, 3) uint8, blobs in noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:8, :8]
    centers = rng.uniform(2, 6, (n, 2, 1, 1))
    blobs = np.exp(-((x - centers[:, 0]) ** 2 + (y - centers[:, 1]) ** 2) / 4)
    values = (blobs + rng.normal(0, noise, blobs.shape)).clip(0, 1) * 255
    return np.repeat(values[..., None], 3, axis=3).astype(np.uint8)


def metrics_of(version: int) -> dict[str, float]:
    """Better with each version."""
    fd = 2.0 / version
    return {
        "fd": fd,
        "fd_low": fd * 0.8,
        "fd_high": fd * 1.3,
        "fd_floor": 0.4,
        "fd_ratio": fd / 0.4,
        "precision": 1 - 0.3 / version,
        "precision_real": 0.9,
        "recall": 1 - 0.5 / version,
        "recall_real": 0.87,
        "memorization_share": 0.06,
        "memorization_expected": 0.05,
        "memorization_ratio": 0.9,
        "memorization_share_pixels": 0.05,
        "representation_fd": 1.1,
        "representation_fd_floor": 0.5,
        "n_generated": 1000,
        "n_held_out": 399,
        "n_train": 1145,
    }


class MadeProject:
    """The runs of every version, by stage, below `root`."""

    def __init__(self, root: Path, versions: int = 1) -> None:
        self._open(root)
        self.runs: list[dict[str, CommittedRun]] = []
        root.joinpath(LOCK).write_text("the pictures\n")
        for version in range(1, versions + 1):
            self.runs.append(self.add(version))

    def _open(self, root: Path) -> None:
        self.root = root
        self.store: Store = open_store(root / ".rcg/store")
        self.project = Project(root, Settings(store=str(root / ".rcg/store"), mlflow_uri="off"))

    def copy_to(self, root: Path) -> "MadeProject":
        """The same project in a folder that is empty. Making one takes half a second, a copy a fortieth of it."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        copied = copy.copy(self)
        copied._open(root)
        copied.runs = [dict(runs) for runs in self.runs]
        return copied

    @property
    def newest(self) -> Mapping[str, CommittedRun]:
        return self.runs[-1]

    def add(self, version: int, **changes: Any) -> dict[str, CommittedRun]:
        """Commit a version's runs and show them in artifacts/. `changes`: metrics, and `started_ms`."""
        runs: dict[str, CommittedRun] = {}
        for i, name in enumerate(STAGES):
            mark = version if name in OWN else 1
            started = changes.get("started_ms", START_MS + mark * 24 * HOUR_MS) + i * HOUR_MS
            files = self._files(name, mark, runs, changes.get("metrics", metrics_of(mark)))
            runs[name] = self.commit(name, {"numerics": 1, "seed": 0, "version": mark}, runs, files, started)
            self.project.workspace.publish(self.store, runs[name], STAGES[name])
        return runs

    def commit(
        self,
        name: str,
        params: Mapping[str, Any],
        parents: Mapping[str, CommittedRun],
        files: Mapping[str, bytes],
        started_ms: int,
    ) -> CommittedRun:
        """One run with its spec and record; an equal one is found."""
        needs = [need.stage for need in STAGES[name].needs]
        identity = Identity(
            schema_version=SCHEMA,
            stage=name,
            params=dict(params),
            modules={f"flows.stages.{name}.run": "d" * 64},
            inputs={parent: parents[parent].digest for parent in needs} or {LOCK: "e" * 64},
        )
        spec = Spec(
            schema_version=SCHEMA,
            fingerprint=identity.fingerprint,
            identity=identity,
            source="demo",
            inputs={p: InputSpec(prefix=parents[p].prefix, digest=parents[p].digest) for p in needs},
            collection_lock=None,
            module=f"flows.stages.{name}.run",
        )
        folder = Prefix(self.store, spec.prefix)
        folder.put("spec.json", spec.to_json())
        folder.put("attempts/1.json", b"{}")
        keys = {file: f"{spec.prefix}/out/1/{file}" for file in files}
        for file, data in files.items():
            self.store.put(keys[file], data)
        entries = {file: FileEntry(size=len(data), sha256=digest_of(data)) for file, data in files.items()}

        def record(digest: str) -> RunRecord:
            return RunRecord(
                schema_version=SCHEMA,
                stage=name,
                fingerprint=spec.fingerprint,
                digest=digest,
                attempt=1,
                keys=keys,
                world_size=2,
                device="cpu",
                versions={"python": "3.11.7", "torch": "2.15.0"},
                host="node-7",
                context=CONTEXT,
                started_ms=started_ms,
                ended_ms=started_ms + HOUR_MS // 2,
                adopted_from=None,
                adopted_because=None,
            )

        return commit(self.store, spec.prefix, entries, record)

    def _files(
        self, name: str, mark: int, runs: Mapping[str, CommittedRun], metrics: Mapping[str, float]
    ) -> dict[str, bytes]:
        files = {"metrics.json": readable_json({"mark": float(mark)}, "metrics")}
        if name == "collect":
            listing = {"schema": 1, "decode": {}, "classes": None, "chunks": CHUNKS}
            files |= {"collection.json": canonical_json(listing), "base.json": canonical_json(listing)}
            files["pictures/samples.png"] = png_bytes(grid(some_pictures(16, 0)))
        elif name in ("rdm", "pixels"):
            curve = [{"step": step, "loss": 0.2 + 1 / (step * mark)} for step in range(50, 1050, 50)]
            files["plots/loss.json"] = canonical_json(curve)
        elif name == "sample":
            files["pictures/grid.png"] = png_bytes(grid(some_pictures(36, mark, noise=0.6 / mark)))
        elif name == "evaluate":
            files["metrics.json"] = readable_json(dict(metrics), "metrics")
            files["pictures/real.png"] = png_bytes(grid(some_pictures(36, 99)))
        elif name == "bundle":
            files |= self._bundle(runs, metrics)
        return files

    def _bundle(self, runs: Mapping[str, CommittedRun], metrics: Mapping[str, float]) -> dict[str, bytes]:
        parents: dict[str, Any] = {need.stage: {"content": runs[need.stage].digest} for need in STAGES["bundle"].needs}
        parents["evaluate"]["metrics"] = dict(metrics)
        lineage = {
            "schema_version": 1,
            "collection": {"chunks": CHUNKS, "classes": None},
            "parents": parents,
            "params": {},
        }
        return {"lineage.json": json.dumps(lineage).encode(), "rcg.json": b"{}", "MLmodel": b"{}"}
