"""What a person waits for besides the work itself: the CLI, DVC, and what surrounds a stage's body."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.table import Row
from tests.support.projects import copy_code

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

_TIMED_RUN = """
import functools, json, sys, time
start = time.perf_counter()
import torch
import_torch = time.perf_counter() - start
import flows.stages.rdm.run as stage
import_body = time.perf_counter() - start - import_torch
body = stage.run
seconds = []
@functools.wraps(body)
def timed(*args):
    begin = time.perf_counter()
    result = body(*args)
    seconds.append(time.perf_counter() - begin)
    return result
stage.run = timed
from flows.execution.project import Project
from flows.execution.stage import run_stage
run_stage(Project.here(), "rdm")
print(json.dumps({"import_torch_s": import_torch, "import_body_s": import_body, "body_s": seconds[0]}))
"""


def command_rows() -> list[Row]:
    """All of them, in a copy of this checkout with the preset `smoke`."""
    with tempfile.TemporaryDirectory() as folder:
        project, plain = Path(folder) / "project", Path(folder) / "plain"
        make_project(project)
        make_plain(plain)
        return [help_row(), explain_row(project), *overhead_rows(project), *repro_rows(project, plain)]


def run(command: list[str | Path], where: Path, settings: Mapping[str, str] | None = None) -> str:
    """Run a command of this environment with these RCG_* settings; its output, or an error with what it said."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RCG_")} | dict(settings or {})
    env |= {"PATH": f"{BIN}{os.pathsep}{env['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def waited(command: list[str | Path], where: Path) -> float:
    """Wall time of a command."""
    start = time.perf_counter()
    run(command, where)
    return time.perf_counter() - start


def make_project(project: Path) -> None:
    """A copy of this checkout in which all nine stages are done."""
    copy_code(project)
    shutil.copyfile(ROOT / "presets/smoke.yaml", project / "params.yaml")
    run(["git", "init", "--quiet"], project)
    run([BIN / "rcg", "snapshot", "demo"], project)
    run([BIN / "rcg", "repro"], project)


def make_plain(plain: Path) -> None:
    """Nine DVC stages in a row that do nothing."""
    (plain / ".dvc").mkdir(parents=True)
    shutil.copyfile(ROOT / ".dvc/config", plain / ".dvc/config")
    (plain / "out0").write_text("0")
    lines = ["stages:"]
    for i in range(9):
        lines += [f"  s{i}:", f"    cmd: cp out{i} out{i + 1}", f"    deps: [out{i}]", f"    outs: [out{i + 1}]"]
    (plain / "dvc.yaml").write_text("\n".join(lines) + "\n")
    run(["git", "init", "--quiet"], plain)
    run([BIN / "dvc", "repro", "--no-run-cache"], plain)


def help_row() -> Row:
    """The command that everybody types first."""
    times = [waited([BIN / "rcg", "--help"], ROOT) for _ in range(5)]
    return Row("rcg --help", "median of 5", statistics.median(times), "s", 1.0, {"seconds": times})


def explain_row(project: Path) -> Row:
    """What is asked before anything is spent; the params were checked by an earlier command."""
    times = [waited([BIN / "rcg", "explain"], project) for _ in range(5)]
    return Row("rcg explain, all nine stages", "median of 5", statistics.median(times), "s", 3.0, {"seconds": times})


def overhead_rows(project: Path) -> list[Row]:
    """One inline stage from process start to exit, minus importing torch and the stage and minus its body."""
    rows = []
    for what, settings, target in (("with tracking", {}, 2.0), ("without tracking", {"RCG_MLFLOW_URI": "off"}, None)):
        runs = [_overhead(project, settings) for _ in range(3)]
        where = f"rdm of preset smoke, {what}"
        seconds = statistics.median(run["overhead_s"] for run in runs)
        rows.append(Row("inline stage: beyond imports and body", where, seconds, "s", target, {"runs": runs}))
    shutil.copyfile(ROOT / "presets/smoke.yaml", project / "params.yaml")
    return rows


def _overhead(project: Path, settings: Mapping[str, str]) -> dict[str, float]:
    """Run rdm anew, under another fingerprint."""
    params = project / "params.yaml"
    pattern = re.compile(r"(?m)^(rdm:\n  numerics: )(\d+)")
    text, n = pattern.subn(lambda match: f"{match[1]}{int(match[2]) + 1}", params.read_text())
    if n != 1:
        raise RuntimeError("presets/smoke.yaml has no rdm.numerics to raise")
    params.write_text(text)
    start = time.perf_counter()
    parts: dict[str, float] = json.loads(run([sys.executable, "-c", _TIMED_RUN], project, settings).splitlines()[-1])
    return parts | {"overhead_s": time.perf_counter() - start - sum(parts.values())}


def repro_rows(project: Path, plain: Path) -> list[Row]:
    """`dvc repro` with nothing to do, against nine stages that do nothing."""
    repro: list[str | Path] = [BIN / "dvc", "repro", "--no-run-cache"]
    run(repro, project)
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: waited(repro, project),
        "plain": lambda: waited(repro, plain),
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(5):
        for side, wait in sides.items():
            times[side].append(wait())
    ours, least = statistics.median(times["ours"]), statistics.median(times["plain"])
    return [Row("no-op dvc repro / nine no-op DVC stages", "median of 5 each", ours / least, "", 1.2, dict(times))]
