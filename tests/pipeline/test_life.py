"""A model's life on one machine, in order: first champion, new images, kills, a poisoned batch, rollback, erasure."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from components.collection.packaged import ScansSource
from tests.support.projects import BIN, ROOT, copy_code

pytestmark = pytest.mark.long

STEPS = ("lock", "snapshot", "branch", "repro", "results", "gate", "forward", "close")
N_FIRST, N_NEW, N_POISON = 300, 30, 300
GATE = {
    "seed": 1,
    "n": 200,
    "n_bootstrap": 100,
    "level": 0.95,
    "margin": 0.5,
    "margin_known": 0.5,
    "min_precision": 0.0,
    "min_recall": 0.0,
    "max_memorization": 1.0,
}


class Life:
    """A checkout with its pictures, its store and a process that runs commands in it."""

    def __init__(self, base: Path) -> None:
        self.root, self.pictures, self.store = base / "checkout", base / "pictures", base / "store"
        self.root.mkdir()
        self.pictures.mkdir()
        copy_code(self.root)
        (self.root / "params.yaml").write_text(yaml.safe_dump(_params(), sort_keys=False))
        self.git("init", "-q", "-b", "main")
        self.commit()
        with (base / "commands.log").open("w") as log:
            command = [sys.executable, str(ROOT / "tests/support/life_driver.py")]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            self._driver = subprocess.Popen(command, cwd=self.root, env=self.env(), text=True, **pipes)  # type: ignore[call-overload]
        self.log = base / "commands.log"

    def env(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("RCG_")}
        env |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        return env | {
            "RCG_STORE": str(self.store),
            "RCG_SOURCE": str(self.pictures),
            "RCG_MLFLOW_URI": "sqlite:///mlflow.db",
            "RCG_THREADS": "1",
        }

    def do(self, what: str, **more: str) -> dict[str, Any]:
        """What the command told."""
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self._driver.stdin.flush()
        told: dict[str, Any] = json.loads(self._driver.stdout.readline())
        assert "crash" not in told, told
        return told

    def end(self) -> None:
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.close()
        self._driver.wait(timeout=20)
        self._driver.stdout.close()

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "state")

    def runs(self, stage: str) -> set[str]:
        return {path.parent.name for path in self.store.glob(f"runs/{stage}/*/manifest.json")}

    def shards(self) -> set[Path]:
        return set(self.store.glob("memo/encode/*/entry.json"))

    def add_digits(self, start: int, stop: int) -> None:
        demo = ScansSource()
        keys = [item.key for item in demo.list() if not item.is_metadata]
        for key in keys[start:stop]:
            (self.pictures / Path(key).name).write_bytes(demo.read(key))


def _params() -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())
    params["collect"] |= {"labels": "none", "max_reject_share": 0.2}
    params["collect"]["split"]["near_bits"] = 0
    for stage, steps in (("rdm", 200), ("pixels", 300), ("evaluate", 300)):
        params[stage]["train"] = params[stage]["train"] | {"steps": steps, "log_every": 50}
        params[stage]["train"]["optimizer"] = params[stage]["train"]["optimizer"] | {"lr": 3e-3}
    params["evaluate"]["features"] |= {"dim": 10}  # what it takes to tell noise from 60 digits
    params["pixels"]["preview"]["every"] = 1000
    params["gate"] = GATE
    params["retrain"] |= {"min_new_images": 10, "refit": "never", "init": "champion"}
    return params


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    made = Life(tmp_path_factory.mktemp("life"))
    yield made
    made.end()


@pytest.fixture
def shelf(life: Life, tmp_path: Path) -> Iterator[str]:
    """The checkout has a DVC remote; its configuration, for a clone to have it as well."""
    config = life.root / ".dvc/config.local"
    config.write_text(
        f"[core]\n    remote = shelf\n['remote \"shelf\"']\n    url = {tmp_path}/shelf\n    verify = true\n"
    )
    yield config.read_text()
    config.unlink()


def test_1_first_champion_is_promoted_on_floors_alone(life: Life, shelf: str, tmp_path: Path) -> None:
    life.add_digits(0, N_FIRST)
    told = life.do("retrain")
    assert told["end"] == "promoted", told
    _a_clone_pulls_the_bundle_and_draws(life, shelf, tmp_path / "clone")
    assert life.do("where")["champion"] == 1
    assert "collection.lock" in life.git("ls-files"), "main was fast-forwarded"
    assert life.git("status", "--porcelain") == ""
    assert life.do("retrain")["text"].startswith("no change: 0 new")


def _a_clone_pulls_the_bundle_and_draws(life: Life, shelf: str, clone: Path) -> None:
    life.git("clone", "-q", ".", str(clone))
    (clone / ".dvc/config.local").write_text(shelf)
    for command in (["dvc", "pull", "-q", "artifacts/bundle"], ["rcg", "sample", "-n", "1"]):
        subprocess.run([BIN / command[0], *command[1:]], cwd=clone, env=life.env(), check=True, capture_output=True)
    assert (clone / "samples/0000.png").is_file()


def test_2_new_images_and_a_kill_after_every_step_come_to_the_same_end(life: Life) -> None:
    life.add_digits(N_FIRST, N_FIRST + N_NEW)
    fitted = {stage: life.runs(stage) for stage in ("encoder", "codec")}
    shards, main = life.shards(), life.git("rev-parse", "main")
    for step in STEPS:
        assert life.do("retrain", die_after=step) == {"signal": signal.SIGKILL}, step
    told = life.do("retrain")
    assert told["text"].startswith("no change: 0 new"), told
    assert life.do("where")["champion"] == 2
    assert life.do("where")["previous"] == 1
    assert {stage: life.runs(stage) for stage in fitted} == fitted, "encoder and codec were not touched"
    _only_new_images_were_encoded(life, shards)
    assert life.git("rev-list", "--count", f"{main}..main") == "2", "inputs and results, once each"
    assert life.git("status", "--porcelain") == ""
    assert len(life.do("history")["text"].splitlines()) == 2, "one decision for each version"


def _only_new_images_were_encoded(life: Life, before: set[Path]) -> None:
    import pyarrow as pa

    (fresh,) = life.shards() - before
    data = json.loads(fresh.read_text())["data"]
    table = pa.ipc.open_file(str(life.store / data)).read_all()
    assert len(set(table["key"].to_pylist())) == N_NEW
    params = yaml.safe_load((life.root / "params.yaml").read_text())
    assert params["collect"]["base"] == ["c00000"]
    assert params["rdm"]["init"].startswith("sha256:")


def test_3_a_poisoned_batch_is_refused_and_the_champion_stays(life: Life) -> None:
    main, rng = life.git("rev-parse", "main"), np.random.default_rng(0)
    for i in range(N_POISON):
        picture = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(picture).save(life.pictures / f"zz-poison-{i:03d}.png")
    told = life.do("retrain")
    assert told["end"] == "refused", told
    assert life.do("where")["champion"] == 2
    assert life.git("rev-parse", "main") == main
    assert "distance_known" in life.do("history")["text"]
    again = life.do("retrain")
    assert (again["end"], "no change since" in again["text"]) == (None, True), again
    for path in life.pictures.glob("zz-poison-*"):
        path.unlink()
    assert life.do("retrain")["text"].startswith("no change: 0 new")


def test_4_rollback_goes_back_and_says_so(life: Life) -> None:
    assert life.do("rollback")["version"] == 1
    assert life.do("where")["champion"] == 1
    assert "no earlier champion" in life.do("rollback")["error"]


def test_5_a_picture_is_erased_from_the_whole_store(life: Life) -> None:
    key, sha256, traces = _a_training_picture(life)
    assert all(_holders(life, trace) for trace in traces), "they are there before"
    assert "the source still has the picture" in life.do("forget", image=key)["error"]
    (life.pictures / key).unlink()
    assert life.do("forget", image=key)["models"] == ["models:/rcg/1", "models:/rcg/2", "models:/rcg/3"]
    for trace in traces:
        assert _holders(life, trace) == []
    left = {path.relative_to(life.store).parts[1] for path in life.store.rglob("*.png")}
    assert left <= {"sample"}, "only what models drew is shown"
    assert not list(life.store.rglob("report.html"))
    stone = json.loads((life.store / f"forgotten/{sha256}.json").read_text())
    assert stone["keys"] == [key]
    assert life.do("forget", image=sha256)["keys"] == []
    assert life.do("where")["champion"] == 1, "models stay, and can be judged"
    assert "listed by" not in life.do("forget", image="nobody.pgm")["error"]


def _a_training_picture(life: Life) -> tuple[str, str, list[bytes]]:
    """Name, sha256, and the bytes of its representations and pixels in the cache."""
    import pyarrow as pa

    entry = json.loads(min(life.shards(), key=lambda path: path.stat().st_mtime).read_text())
    table = pa.ipc.open_file(str(life.store / entry["data"])).read_all()
    row = table["split"].to_pylist().index("train")
    key, sha256 = table["key"][row].as_py(), table["sha256"][row].as_py()
    rows = [i for i, name in enumerate(table["key"].to_pylist()) if name == key]
    representations = [np.array(table["representation"][i].as_py(), np.float32).tobytes() for i in rows]
    target = np.array(table["target"][row].as_py(), np.uint8).tobytes()
    return key, sha256, [*representations, target]


def _holders(life: Life, trace: bytes) -> list[Path]:
    """Files of the store, events and leftovers included, that hold the bytes."""
    return [path for path in life.store.rglob("*") if path.is_file() and trace in path.read_bytes()]
