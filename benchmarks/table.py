"""Results of a benchmark run: rows for people, JSON with machine and date for comparison."""

import datetime
import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One measured number. `target`: at least for a ratio saved ("x"), at most for everything else."""

    what: str
    where: str
    value: float
    unit: str
    target: float | None = None
    raw: dict[str, Any] = field(default_factory=dict)
    """What the number was computed from."""

    @property
    def reached(self) -> bool | None:
        """None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.unit == "x" else self.value <= self.target


def show(rows: list[Row]) -> str:
    """A table in plain text."""
    lines = [f"{'what':<44} {'where':<48} {'value':>10}  target"]
    for row in rows:
        sign = ">=" if row.unit == "x" else "<="
        goal = "" if row.target is None else f"{sign} {row.target:g} {'reached' if row.reached else 'MISSED'}"
        lines.append(f"{row.what:<44} {row.where:<48} {row.value:>7.2f} {row.unit:<2}  {goal}".rstrip())
    return "\n".join(lines)


def save(rows: list[Row], of: str = "") -> Path:
    """benchmarks/results/<date>.json, or <date>-<of>.json."""
    now = datetime.datetime.now(datetime.UTC)
    load = os.getloadavg()
    document = {
        "date": now.isoformat(timespec="seconds"),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform(), "load_before": load},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "dvc")},
        },
        "rows": [asdict(row) | {"reached": row.reached} for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (f"{now:%Y-%m-%d}-{of}.json" if of else f"{now:%Y-%m-%d}.json")
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()
