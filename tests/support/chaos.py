"""A small project that everything happens to: trials, each in a process that is forked from one that imported all.

A trial passes when the same command, run again without the fault, gives the same content; or when an error of the
project, with its exit code, said what is wrong. It fails on a traceback, on other content with exit 0, and when the
command needs a hand.
"""

import contextlib
import os
import random
import shutil
import sys
import tempfile
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tests.support.faults import Count, Fault
from tests.support.pipelines import stages_of

ROOT = Path(__file__).parents[2]
STAGES = list(stages_of("smoke"))
CONSUMER = {
    "collect": "encoder",
    "encoder": "encode",
    "codec": "encode",
    "encode": "rdm",
    "rdm": "sample",
    "pixels": "sample",
    "sample": "evaluate",
    "evaluate": "bundle",
}
"""Stage -> the first that reads what it makes; the bundle is read by `rcg sample`."""
NAMED = {2, 3, 75}
"""Exit codes of the project's errors."""
_MOST_OF_A_KIND = 40
"""Operations of a stage at which a fault of one kind comes, evenly spaced."""
SETTINGS = {
    "RCG_STORE": "store",
    "RCG_MLFLOW_URI": "off",
    "RCG_DEVICE": "cpu",
    "RCG_EVENT_INTERVAL_S": "0",
    "RCG_CHECKPOINT_EVERY": "2",
}
_LATE = (
    *("PIL.PngImagePlugin", "pyarrow.ipc", "pandas", "matplotlib.pyplot"),
    *("torch._dynamo", "torch.distributed.checkpoint.hf_storage"),
)
"""What libraries import in the middle of a stage: seconds of each fork that finds them missing."""
_STEPS = {"steps": 6, "warmup_steps": 1, "log_every": 2}


@dataclass(frozen=True)
class Trial:
    """One thing that goes wrong: a fault at an operation of a stage, or a byte of an object."""

    kind: str
    stage: str
    at: int | str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.stage} {self.at}"


@dataclass(frozen=True)
class Finding:
    """What a trial came to: `same`, `named`, or, if it failed, what happened."""

    name: str
    outcome: str
    text: str = ""

    @property
    def passed(self) -> bool:
        return self.outcome in ("same", "named")


class Rig:
    """The project, made once; every trial works on a copy of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, folder / "made"
        self.n_operations: dict[tuple[str, Fault], int] = {}

    def prepare(self) -> "Rig":
        """Run every stage once, counting its operations. Imports all that a stage imports, so that a fork is cheap."""
        import flows.commands.table
        import flows.execution.stage  # noqa: F401

        make_project(self.made)
        for module in (*(f"flows.stages.{stage}.run" for stage in STAGES), *_LATE):
            import_module(module)
        self.must("snapshot", str(self.folder / "pictures"))
        for stage in STAGES:
            self._count(stage)
        return self

    def must(self, *command: str) -> None:
        code, text = rcg(self.made, *command)
        assert code == 0, text

    def _count(self, stage: str) -> None:
        """Run the stage twice to count its operations: those that change something, then all."""
        counted: tuple[Fault, ...] = ("kill", "EIO")
        for fault in counted:
            _forget(self.made, [stage])
            shutil.rmtree(self.made / "store/memo" / stage, ignore_errors=True)
            counter = self.folder / "n"
            code, text = rcg(self.made, "run", stage, fault=fault, count=counter)
            assert code == 0, text
            self.n_operations[stage, fault] = int(counter.read_text())
        self.n_operations[stage, "ENOSPC"] = self.n_operations[stage, "kill"]

    def digests(self, root: Path) -> dict[str, str]:
        """Stage -> content of the manifest that artifacts/ shows."""
        found = {stage: root / "artifacts" / stage / "manifest.json" for stage in STAGES}
        return {stage: path.read_bytes().hex() for stage, path in found.items() if path.is_file()}

    def trials(self) -> list[Trial]:
        """All of them, in an order that is the same each time and mixes the kinds."""
        found = [
            Trial(fault, stage, round(1 + i * (n - 1) / (_MOST_OF_A_KIND - 1)))
            for (stage, fault), n in self.n_operations.items()
            for i in range(_MOST_OF_A_KIND)
        ]
        for path in sorted((self.made / "store").rglob("*")):
            parts = path.relative_to(self.made / "store").parts
            if path.is_file() and path.stat().st_size and parts[0] in ("runs", "memo") and parts[1] in STAGES:
                found.append(Trial("byte of a finished run", parts[1], "/".join(parts)))
        found += [
            Trial("byte of an interrupted run", stage, k) for stage in ("encoder", "rdm", "pixels") for k in range(12)
        ]
        found = list(dict.fromkeys(found))
        random.Random(0).shuffle(found)
        return found

    def run(self, trial: Trial) -> Finding:
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            root = Path(scratch) / "made"
            shutil.copytree(self.made, root)
            if trial.kind == "byte of a finished run":
                return self._damaged(trial, root, Path(trial.at))
            if trial.kind == "byte of an interrupted run":
                return self._interrupted(trial, root)
            return self._faulty(trial, root)

    def _faulty(self, trial: Trial, root: Path) -> Finding:
        """The fault, then the same command again."""
        _forget(root, STAGES[STAGES.index(trial.stage) :])
        shutil.rmtree(root / "store/memo" / trial.stage, ignore_errors=True)
        code, text = rcg(root, "run", trial.stage, fault=trial.kind, at=int(trial.at))  # type: ignore[arg-type]
        problem = _problem(code, text, killed=trial.kind == "kill")
        if problem is not None:
            return Finding(trial.name, problem, text)
        code, text = rcg(root, "run", trial.stage)
        if code != 0:
            return Finding(trial.name, "needs a hand", text)
        return self._compared(trial, root, text)

    def _damaged(self, trial: Trial, root: Path, name: Path) -> Finding:
        """One byte of an object is another, and whoever reads it first is run anew; then everything above, too."""
        _flip(root / "store" / name, seed=trial.name)
        if name.parts[0] == "memo":
            _forget(root, STAGES[STAGES.index(trial.stage) :])
            commands = [("run", stage) for stage in STAGES[STAGES.index(trial.stage) :][:2]]
        elif trial.stage == "bundle":
            commands = [("run", "bundle"), ("sample", "-n", "1")]
        else:
            reader = CONSUMER[trial.stage]
            _forget(root, [reader])
            commands = [("run", trial.stage), ("run", reader)]
        return self._read(trial, root, commands)

    def _interrupted(self, trial: Trial, root: Path) -> Finding:
        """A run that was killed in the middle, then a byte of each of its objects in turn."""
        _forget(root, STAGES[STAGES.index(trial.stage) :])
        rcg(root, "run", trial.stage, fault="kill", at=self.n_operations[trial.stage, "kill"] // 2)
        files = sorted(p for p in (root / "store/runs" / trial.stage).rglob("*") if p.is_file() and p.stat().st_size)
        if int(trial.at) >= len(files):
            return Finding(trial.name, "same", "there are fewer objects")
        _flip(files[int(trial.at)], seed=trial.name)
        return self._read(trial, root, [("run", trial.stage)])

    def _read(self, trial: Trial, root: Path, commands: list[tuple[str, ...]]) -> Finding:
        for command in commands:
            code, text = rcg(root, *command)
            problem = _problem(code, text)
            if problem is not None:
                return Finding(trial.name, problem, text)
            if code != 0:
                return Finding(trial.name, "named", text)
        return self._compared(trial, root, text)

    def _compared(self, trial: Trial, root: Path, text: str) -> Finding:
        found, made = self.digests(root), self.digests(self.made)
        other = [stage for stage, digest in found.items() if made[stage] != digest]
        return Finding(trial.name, f"other content: {', '.join(other)}" if other else "same", text)


def _problem(code: int, text: str, *, killed: bool = False) -> str | None:
    """What no command may end with; None for an ending that is allowed."""
    if "Traceback" in text:
        return "traceback"
    if code == 0 or code in NAMED or (killed and code < 0):
        return None
    return f"exit code {code}"


def rcg(
    root: Path, *command: str, fault: Fault = "kill", at: int | None = None, count: Path | None = None
) -> tuple[int, str]:
    """(exit code, or minus the signal, and what was said) of a command in a forked process."""
    log = root.parent / f"{root.name}.log"
    pid = os.fork()
    if pid == 0:
        _child(root, command, log, fault, at, count)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")


def _child(root: Path, command: tuple[str, ...], log: Path, fault: Fault, at: int | None, count: Path | None) -> None:
    """Ends the process."""
    code = 99
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115  (not those of pytest)
        os.chdir(root)
        for name in [name for name in os.environ if name.startswith("RCG_")]:
            del os.environ[name]
        os.environ |= SETTINGS | {"TMPDIR": str(root / "tmp")}
        tempfile.tempdir = None
        from flows.__main__ import main

        counter = Count(root, fault, at).install()
        sys.argv = ["rcg", *command]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        n = counter.n
        if count is not None:
            counter.at = None
            count.write_text(str(n))
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def make_project(root: Path) -> None:
    """Pictures beside it, and the smoke preset with few steps."""
    (root / "tmp").mkdir(parents=True)
    params = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())
    params["collect"]["labels"] = "none"
    for stage in ("encoder", "rdm", "pixels", "evaluate"):
        params[stage]["train"] = params[stage]["train"] | _STEPS
    params["pixels"]["preview"]["every"] = 4
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8]
    pictures = root.parent / "pictures"
    pictures.mkdir()
    for i in range(60):
        cx, cy = rng.uniform(1, 7, 2)
        blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 + 2 * (i % 3))) + rng.normal(0, 0.15, (8, 8))
        Image.fromarray((blob.clip(0, 1) * 255).astype(np.uint8)).save(pictures / f"{i:02d}.png")


def _forget(root: Path, stages: list[str]) -> None:
    """As if these had never been run; memoised parts stay, except those of a stage that is among them."""
    for stage in stages:
        for path in (root / "store/runs" / stage, root / "artifacts" / stage):
            shutil.rmtree(path, ignore_errors=True)


def _flip(path: Path, seed: str) -> None:
    data = bytearray(path.read_bytes())
    at = random.Random(seed).randrange(len(data))
    data[at] ^= 1 << random.Random(seed + "bit").randrange(8)
    path.chmod(0o644)
    path.write_bytes(bytes(data))
