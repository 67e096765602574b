"""Params are checked without the libraries that stages compute with."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
HEAVY = {"torch", "sklearn", "scipy", "ray", "mlflow", "pyarrow", "timm", "PIL", "numpy", "matplotlib", "kubernetes"}
CHECK_ALL = """
from pathlib import Path
from flows.pipeline.params import load_params
files = [Path("params.yaml"), *sorted(Path("presets").glob("*.yaml"))]
assert len(files) > 2
for file in files:
    load_params(file)
"""
HELP = """
from flows.commands.table import app
app(["--help"], standalone_mode=False)
"""
VERBS = """
import flows.gate.promotion, flows.gate.rollback, flows.lineage.garbage, flows.retrain.steps
import sys
del sys.modules["numpy"]  # arrays pass through
"""
PLAN = """
from pathlib import Path
from flows.pipeline.params import load_sections
from flows.pipeline.plan import plan_text
assert plan_text(load_sections(Path("params.yaml")))
"""


@pytest.mark.parametrize("script", [CHECK_ALL, HELP, PLAN, VERBS], ids=["params", "help", "plan", "verbs"])
def test_nothing_heavy_is_imported(script: str) -> None:
    told = f"{script}\nimport sys; print('heavy:', *sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["heavy:"]
