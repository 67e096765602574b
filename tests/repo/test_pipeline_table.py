"""dvc.yaml, params.yaml, presets and the table of stages say the same thing."""

from pathlib import Path

import grimp
import pytest
import yaml

from flows.identity.closure import PLUMBING
from flows.pipeline.params import Params, load_params
from flows.pipeline.plan import code_deps, plan_text
from flows.pipeline.table import KINDS, pipeline

ROOT = Path(__file__).parents[2]
POLICIES = ["gate", "retrain"]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))
AROUND = ("flows", "components", "flows.stages")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("flows", "components", cache_dir=None)


def _file(module: str) -> str:
    path = ROOT / module.replace(".", "/")
    return f"{module.replace('.', '/')}/__init__.py" if path.is_dir() else f"{module.replace('.', '/')}.py"


def _is_plumbing(module: str) -> bool:
    return not module.startswith("flows.stages.") and any(module == p or module.startswith(f"{p}.") for p in PLUMBING)


def _imported(module: str, graph: grimp.ImportGraph) -> set[str]:
    """The module and all that it imports, with the packages whose __init__ runs before, but not through plumbing."""
    found, waiting = {module}, [module]
    while waiting:
        name = waiting.pop()
        package = {name.rpartition(".")[0]} & graph.modules - set(AROUND)
        imported = graph.find_modules_directly_imported_by(name) | package
        new = {m for m in imported if not _is_plumbing(m)} - found
        found |= new
        waiting += new
    return found


def test_every_kind_of_stage_has_its_section_in_the_same_order() -> None:
    assert list(Params.model_fields) == [*KINDS, *POLICIES]


def test_parents_stand_above_their_children() -> None:
    names = list(KINDS)
    assert all(names.index(need.stage) < names.index(stage.name) for stage in KINDS.values() for need in stage.needs)


def test_dvc_yaml_is_what_rcg_plan_writes() -> None:
    wanted = plan_text(load_params(ROOT / "params.yaml").model_dump(mode="json"))
    assert (ROOT / "dvc.yaml").read_text() == wanted, "dvc.yaml is stale: run `rcg plan` and commit it"


def test_blocks_of_dvc_yaml() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    blocks = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    stages = pipeline(params)
    assert list(blocks) == list(stages)
    for name, block in blocks.items():
        assert block["cmd"] == f"rcg run {name}"
        assert block["params"] == [name]
        assert block["outs"] == [f"artifacts/{name}"]
        parents = {f"artifacts/{need.stage}/{need.file or 'manifest.json'}" for need in stages[name].needs}
        assert {d for d in block["deps"] if d.startswith("artifacts/")} == parents
        assert ("collection.lock" in block["deps"]) == (name == "collect")


@pytest.mark.parametrize("name", KINDS)
def test_deps_are_exactly_the_rooms_that_the_stage_imports(name: str, graph: grimp.ImportGraph) -> None:
    files = {_file(m) for m in _imported(KINDS[name].module, graph) if m not in AROUND}
    deps = code_deps(KINDS[name].module)
    uncovered = {f for f in files if not any(f == d or f.startswith(f"{d}/") for d in deps)}
    assert not uncovered, "imported but not a dep: DVC would not see its edits"
    needless = {d for d in deps if not any(f == d or f.startswith(f"{d}/") for f in files)}
    assert not needless, "a dep that the stage does not import reruns it for nothing"


def test_params_yaml_is_the_digits_preset() -> None:
    assert (ROOT / "params.yaml").read_text() == (ROOT / "presets/handwriting.yaml").read_text()


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_preset_validates(path: Path) -> None:
    load_params(path)


def test_dvc_yaml_fits_two_screens() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 140
