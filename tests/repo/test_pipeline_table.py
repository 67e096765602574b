"""dvc.yaml, params.yaml, presets and the STAGES table say the same thing."""

from pathlib import Path

import grimp
import pytest
import yaml

from flows.pipeline.params import Params, load_params
from flows.pipeline.table import STAGES

ROOT = Path(__file__).parents[2]
POLICIES = ["gate", "retrain"]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("flows", "components", cache_dir=None)


def _file(module: str) -> str:
    path = ROOT / module.replace(".", "/")
    return f"{module.replace('.', '/')}/__init__.py" if path.is_dir() else f"{module.replace('.', '/')}.py"


def test_same_stages_in_the_same_order() -> None:
    assert list(DVC) == list(STAGES)
    assert list(Params.model_fields) == [*STAGES, *POLICIES]


@pytest.mark.parametrize("name", STAGES)
def test_stage_block(name: str) -> None:
    block = DVC[name]
    assert block["cmd"] == f"rcg run {name}"
    assert block["params"] == [name]
    assert block["outs"] == [f"artifacts/{name}"]
    parents = {f"artifacts/{need.stage}/{need.file or 'manifest.json'}" for need in STAGES[name].needs}
    assert {d for d in block["deps"] if d.startswith("artifacts/")} == parents
    assert ("collection.lock" in block["deps"]) == (name == "collect")


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_exactly_the_rooms_that_the_stage_imports(name: str, graph: grimp.ImportGraph) -> None:
    module = STAGES[name].module
    files = {_file(m) for m in graph.find_upstream_modules(module) | {module}}
    files = {f for f in files if f not in ("flows/__init__.py", "components/__init__.py", "flows/stages/__init__.py")}
    deps = [d for d in DVC[name]["deps"] if not d.startswith("artifacts/") and d != "collection.lock"]
    uncovered = {f for f in files if not any(f == d or f.startswith(f"{d}/") for d in deps)}
    assert not uncovered, "imported but not a dep: DVC would not see its edits"
    needless = {d for d in deps if not any(f == d or f.startswith(f"{d}/") for f in files)}
    assert not needless, "a dep that the stage does not import reruns it for nothing"


def test_params_yaml_is_the_digits_preset() -> None:
    assert (ROOT / "params.yaml").read_text() == (ROOT / "presets/digits.yaml").read_text()


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_preset_validates(path: Path) -> None:
    load_params(path)


def test_dvc_yaml_fits_two_screens() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 140
