"""A stage beside a busy process: what is left of its speed, and what would be fair.

The stages of the preset `digits`, with fewer steps, run as a person runs them; beside, a process that does nothing but
compute. Alone and beside take turns, so that a machine that others use as well favors neither.
"""

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.commands import BIN, ROOT, run
from benchmarks.table import Row
from components.store import open_store
from flows.runs.events import read_events
from tests.support.projects import copy_code

STAGES = {"encoder": 60, "rdm": 300, "pixels": 150}
"""Steps of each: some seconds."""
_TURNS = 3
_SPIN = "while True: pass"


def busy_rows() -> list[Row]:
    """Examples per second beside one busy process over those alone; at least the cores that are left are fair."""
    cores = os.cpu_count() or 1
    fair = max(0.5, 1 - 1 / cores)  # on one core, every second moment
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        _make_project(project)
        return [_row(project, stage, fair) for stage in STAGES]


def _make_project(project: Path) -> None:
    copy_code(project)
    shutil.copyfile(ROOT / "presets/digits.yaml", project / "params.yaml")
    for stage, steps in STAGES.items():
        _edit(project, stage, r"(  train:\n    steps: )\d+", rf"\g<1>{steps}")
    run(["git", "init", "--quiet"], project)
    run([BIN / "rcg", "snapshot", "demo"], project)
    for stage in ("collect", "encoder", "codec", "encode"):
        run([BIN / "rcg", "run", stage], project, {"RCG_MLFLOW_URI": "off"})


def _edit(project: Path, stage: str, pattern: str, new: str) -> None:
    """Replace the first match in the stage's section of params.yaml."""
    path = project / "params.yaml"
    head, mark, tail = path.read_text().partition(f"\n{stage}:\n")
    changed, n = re.subn(pattern, new, tail, count=1)
    if not mark or n != 1:
        raise RuntimeError(f"presets/digits.yaml has no {pattern} in {stage}")
    path.write_text(head + mark + changed)


def _row(project: Path, stage: str, fair: float) -> Row:
    rates: dict[str, list[float]] = {"alone": [], "beside": []}
    for turn in range(_TURNS):
        for i, (how, found) in enumerate(rates.items()):
            _edit(project, stage, r"(  numerics: )\d+", rf"\g<1>{2 + 2 * turn + i}")
            with _spinning() if how == "beside" else contextlib.nullcontext():
                run([BIN / "rcg", "run", stage], project, {"RCG_MLFLOW_URI": "off"})
            found.append(_rate(project, stage))
    ratio = statistics.median(rates["beside"]) / statistics.median(rates["alone"])
    return Row("beside one busy process / alone", f"{stage} of preset digits", ratio, "x", fair, dict(rates))


@contextlib.contextmanager
def _spinning() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", _SPIN]) as process:
        try:
            yield
        finally:
            process.kill()


def _rate(project: Path, stage: str) -> float:
    """Examples per second of the newest run: the median over its log intervals without the first, which warms up."""
    store = open_store(project / ".rcg/store")
    newest = max((project / ".rcg/store/runs" / stage).iterdir(), key=lambda path: path.stat().st_mtime)
    events = read_events(store, f"runs/{stage}/{newest.name}")
    rates = [event.metrics["examples_per_s"] for event in events if "examples_per_s" in event.metrics]
    return statistics.median(rates[1:])
