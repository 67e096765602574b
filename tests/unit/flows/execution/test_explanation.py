"""`rcg explain`: verdicts, exact reasons against the most alike run, what is used again, and the cost."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.cache.memo_keys import shard_key
from components.collection.lock import Entry, write_lock
from components.store import Prefix
from components.training.checkpoint import Latest, Saved
from flows.execution.explanation import explain
from flows.execution.project import Project
from flows.execution.status import status_text
from flows.identity.artifact import SCHEMA, FileEntry, canonical_json, digest_of
from flows.runs.records import CommittedRun, RunRecord, Spec, commit
from flows.runs.stored import memo_folder
from flows.settings import Settings
from tests.support.cli import rcg
from tests.support.pipelines import stages_of

STAGES = stages_of("smoke")

REPO = Path(__file__).parents[4]
LISTING = {
    "schema": 1,
    "decode": {},
    "classes": None,
    "chunks": [{"name": "c0", "count": 90, "sha256": "a" * 64}, {"name": "c1", "count": 10, "sha256": "b" * 64}],
}


class Bench:
    """A project with real params and code whose runs are written by hand, with the times that a test wants."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copy(REPO / "presets/smoke.yaml", root / "params.yaml")
        entries = [Entry(f"{i}.png", 9, f"{i:016x}") for i in range(3)]
        write_lock(root / "collection.lock", [], [("c00000", entries[:2]), ("c00001", entries[2:])])

    @property
    def project(self) -> Project:
        return Project(self.root, Settings(store=str(self.root / "store"), mlflow_uri="off"))

    def spec(self, name: str) -> Spec:
        return self.project.spec(STAGES[name])

    def start(self, name: str, spec: Spec | None = None) -> Prefix:
        spec = spec or self.spec(name)
        folder = Prefix(self.project.store, spec.prefix)
        folder.put("spec.json", spec.to_json())
        folder.put("attempts/1.json", b"{}")
        return folder

    def finish(self, name: str, *, seconds: float = 100, workers: int = 2, attempt: int = 1) -> CommittedRun:
        spec, project = self.spec(name), self.project
        self.start(name, spec).put(f"attempts/{attempt}.json", b"{}")
        files = {"metrics.json": b"{}", "weights": name.encode() * 1000, "base.json": b"{}"}
        files["collection.json"] = canonical_json(LISTING)
        keys = {file: f"{spec.prefix}/out/{attempt}/{file}" for file in files}
        for file, data in files.items():
            project.store.put(keys[file], data)
        entries = {file: FileEntry(size=len(data), sha256=digest_of(data)) for file, data in files.items()}

        def record(digest: str) -> RunRecord:
            return RunRecord(
                schema_version=SCHEMA,
                stage=name,
                fingerprint=spec.fingerprint,
                digest=digest,
                attempt=attempt,
                keys=keys,
                world_size=workers,
                device="cpu",
                versions={},
                host="here",
                context={},
                started_ms=10**6,
                ended_ms=10**6 + int(seconds * 1000),
                adopted_from=None,
                adopted_because=None,
            )

        run = commit(project.store, spec.prefix, entries, record)
        project.workspace.publish(project.store, run, STAGES[name])
        return run

    def finish_all(self) -> None:
        """Every stage, each in 100 s."""
        for name in STAGES:
            self.finish(name)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        import yaml

        values = json.loads(json.dumps(yaml.safe_load((self.root / "params.yaml").read_text())))  # aliases are copied
        change(values)
        (self.root / "params.yaml").write_text(yaml.safe_dump(values))

    def told(self, name: str | None = None) -> str:
        os.chdir(self.root)
        return rcg("explain", *([name] if name else []))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCG_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def all_finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages are finished, to be copied: making one takes a second."""
    made = Bench(tmp_path_factory.mktemp("finished"))
    made.finish_all()
    return made.root


@pytest.fixture
def finished(bench: Bench, all_finished: Path) -> Bench:
    shutil.copytree(all_finished, bench.root, dirs_exist_ok=True)
    return bench


def _steps(n: int, stage: str = "rdm") -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        values[stage]["train"]["steps"] = n

    return change


def test_nothing_ever_ran(bench: Bench) -> None:
    told = bench.told()
    assert "collect: will run" in told
    assert "it has never run in this store" in told
    assert told.count("waits for collect") == 8
    assert "would take" not in told


def test_everything_is_done(finished: Bench) -> None:
    assert finished.told().count("will not run") == 9


def test_reasons_cost_and_total_after_a_longer_training(finished: Bench) -> None:
    steps = finished.project.sections["rdm"]["train"]["steps"]
    finished.edit(_steps(3 * steps))
    told = finished.told("rdm")
    assert f"param train.steps: {steps} -> {3 * steps}" in told
    assert told.count("param ") == 1
    assert "about 5 min on 2 x cpu (0.17 worker-hours, 3." in told
    assert "scaled by 3" in told
    everything = finished.told()
    assert everything.count("will not run") == 5, everything
    assert "pixels: will not run" in everything
    assert everything.count("waits for rdm") == 3
    assert "all that would or might run: about 10 min, 0.33 worker-hours" in everything


def test_a_stage_that_waits_says_what_of_its_own_changed(finished: Bench) -> None:
    steps = finished.project.sections["rdm"]["train"]["steps"]

    def both(values: dict[str, Any]) -> None:
        _steps(3 * steps)(values)
        values["sample"]["n"] += 1

    finished.edit(both)
    by_stage = {e.stage: e for e in explain(finished.project, None)}
    sample, bundle = by_stage["sample"], by_stage["bundle"]
    assert sample.headline == "waits for rdm; then it will run"
    assert sample.nearest is not None
    assert [d.name for d in sample.nearest.differences] == ["n"]
    assert bundle.headline == "waits for rdm; runs unless what it reads comes out the same"
    assert bundle.nearest is None


def test_the_most_alike_run_is_compared_with_not_the_last(finished: Bench) -> None:
    first = finished.spec("rdm").fingerprint
    steps = finished.project.sections["rdm"]["train"]["steps"]

    def other(values: dict[str, Any]) -> None:
        values["rdm"]["train"]["steps"], values["rdm"]["seed"], values["rdm"]["numerics"] = 7, 5, 2

    text = Path("params.yaml").read_text()
    finished.edit(other)
    finished.finish("rdm", seconds=7)
    Path("params.yaml").write_text(text)
    finished.edit(_steps(2 * steps))
    found = explain(finished.project, "rdm")[0]
    assert found.nearest is not None
    assert found.nearest.fingerprint == first
    assert [d.name for d in found.nearest.differences] == ["train.steps"]
    assert found.cost is not None
    assert found.cost.seconds == 200


@pytest.mark.parametrize("wrong", [{"seconds": -5}, {"attempt": 2}])
def test_times_that_mean_nothing_are_not_counted(finished: Bench, wrong: dict[str, Any]) -> None:
    """A clock that went back, and a resumed run, whose last attempt alone was timed."""
    finished.edit(_steps(6))
    finished.finish("rdm", **wrong)
    finished.edit(_steps(9))
    found = explain(finished.project, "rdm")[0]
    assert found.cost is not None
    assert found.cost.seconds > 0
    assert found.cost.like != finished.spec("rdm").fingerprint


def test_a_changed_module_is_named_with_its_digests(finished: Bench) -> None:
    before = finished.spec("rdm")
    moved = before.model_copy(
        update={
            "identity": before.identity.model_copy(
                update={
                    "modules": {
                        **before.identity.modules,
                        "components.rdm.denoiser": "0" * 64,
                        "components.gone": "1" * 64,
                    }
                }
            )
        }
    )
    folder = Prefix(finished.project.store, before.prefix)
    folder.put("spec.json", moved.to_json())  # as if that run had been made by other code
    finished.edit(_steps(4))
    told = finished.told("rdm")
    now = before.identity.modules["components.rdm.denoiser"]
    assert f"module components.rdm.denoiser: 0000000000 -> {now[:10]}" in told
    assert "module components.gone: gone, was 1111111111" in told


def test_a_checkpoint_shortens_it(finished: Bench) -> None:
    steps = finished.project.sections["rdm"]["train"]["steps"]
    finished.edit(_steps(2 * steps))
    folder = finished.start("rdm")
    saved = Saved(step=steps, attempt=1, files=())
    folder.put("checkpoints/latest.json", Latest(kept=(saved,)).model_dump_json().encode())
    told = finished.told("rdm")
    assert "was interrupted (attempt 1)" in told
    assert f"goes on from its checkpoint of step {steps} of {2 * steps}" in told
    found = explain(finished.project, "rdm")[0]
    assert found.cost is not None
    assert found.cost.seconds == pytest.approx(100)


def test_chunks_that_were_encoded_before_are_counted(finished: Bench) -> None:

    def raised(values: dict[str, Any]) -> None:
        values["encode"]["max_reject_share"] = 0.5  # no part of a shard's key

    finished.edit(raised)
    spec = finished.spec("encode")
    key = shard_key(
        spec.identity.params,
        pictures="a" * 64,
        decode={},
        encoder=spec.inputs["encoder"].digest,
        codec=spec.inputs["codec"].digest,
    )
    finished.project.store.put(f"{memo_folder('encode', key)}/entry.json", b"{}")
    told = finished.told("encode")
    assert "uses 1 of 2 chunk(s) again; 10 of 100 pictures to do" in told
    assert "about 10 s" in told
    assert "reads collect" in told


def test_json_says_the_same(finished: Bench) -> None:
    finished.edit(_steps(5))
    told = json.loads(rcg("explain", "rdm", "--json"))[0]
    assert told["runs"] is True
    assert told["nearest"]["differences"][0]["name"] == "train.steps"
    assert told["cost"]["worker_hours"] > 0


def test_it_is_quick_and_needs_no_torch(finished: Bench) -> None:
    finished.told()
    script = (
        "import sys; from flows.commands.table import app; app(['explain'], standalone_mode=False); "
        "assert not {'torch', 'mlflow', 'ray', 'numpy'} & set(sys.modules)"
    )
    started = time.process_time(), os.times().children_user
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=finished.root,
        env=os.environ | {"PYTHONPATH": str(REPO)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("will not run") == 9
    assert os.times().children_user - started[1] < 3, "seconds of CPU: the wall clock is the machine's"


def test_status_says_damaged_and_what_mends_it(bench: Bench) -> None:
    run = bench.finish("collect")
    store = bench.project.store
    store.delete(run.keys["weights"])
    store.put(f"{run.prefix}/lease.json", b"{")
    rows = {line.split()[0]: line for line in status_text(bench.project).splitlines() if line}
    assert "damaged" in rows["collect"]
    assert run.fingerprint[:10] in rows["collect"]
    assert rows["encoder"].split(maxsplit=1)[1] == "waits for its parents"
    assert f"weights of {run.prefix} is gone" in status_text(bench.project)
    store.put(run.keys["weights"], b"collect" * 1000)
    store.put(f"{run.prefix}/run.json", b"{")
    store.put(f"{run.prefix}/events/1/000001.jsonl", b"{")
    store.put(f"{run.prefix}/attempts/1.failure.json", b"{")
    rows = {line.split()[0]: line for line in status_text(bench.project).splitlines() if line}
    assert rows["collect"].split()[1:] == ["done", run.fingerprint[:10], run.digest[:10]]
    path = bench.root / "artifacts/collect/manifest.json"
    path.write_bytes(path.read_bytes() + b" ")
    assert "artifacts/collect/manifest.json was edited by hand" in status_text(bench.project)
