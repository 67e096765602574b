"""dvc.yaml is written from params, its changes are told, and a stale one is refused with the command that mends it."""

import shutil
from pathlib import Path

import pytest
import yaml

from components.errors import ConfigError
from flows.pipeline.params import load_sections
from flows.pipeline.plan import check_plan, code_deps, plan_text, write_plan
from tests.support.cli import rcg

ROOT = Path(__file__).parents[4]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml alone."""
    shutil.copy(ROOT / "presets/smoke.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_plan_is_written_once_and_then_up_to_date(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"dvc\.yaml is missing[\s\S]*rcg plan"):
        check_plan(project)
    assert "dvc.yaml is new" in rcg("plan")
    assert list(check_plan(project)) == list(yaml.safe_load((project / "dvc.yaml").read_text())["stages"])
    assert rcg("plan", "--check") == rcg("plan") == "dvc.yaml is up to date\n"


def test_values_of_params_are_no_part_of_the_plan(project: Path) -> None:
    write_plan(project)
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("guidance: 0.5", "guidance: 0.25"))
    check_plan(project)


def test_other_needs_make_it_stale(project: Path) -> None:
    write_plan(project)
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("representations: rdm", "representations: oracle"))
    change = r"sample: deps -artifacts/rdm/manifest.json \+artifacts/encode/manifest.json"
    with pytest.raises(ConfigError, match=rf"stale[\s\S]*{change}[\s\S]*fix: .*rcg plan"):
        check_plan(project)
    assert len(write_plan(project)) == 1
    check_plan(project)


def test_a_file_that_was_written_by_hand_is_refused_and_replaced(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages:\n  collect: {cmd: rcg run collect}\n  old: {cmd: 'true'}\n")
    with pytest.raises(ConfigError, match=r"stale[\s\S]*not written by[\s\S]*- old[\s\S]*\+ rdm[\s\S]*rcg plan"):
        check_plan(project)
    changes = write_plan(project)
    assert "- old" in changes
    assert any(line.startswith("  collect: ") and "+collection.lock" not in line for line in changes)
    check_plan(project)


def test_line_ends_of_windows_change_nothing(project: Path) -> None:
    write_plan(project)
    params = load_sections(project / "params.yaml")
    for name in ("params.yaml", "dvc.yaml"):
        (project / name).write_bytes((project / name).read_bytes().replace(b"\n", b"\r\n"))
    assert load_sections(project / "params.yaml") == params
    check_plan(project)
    assert write_plan(project) == []


def test_params_with_the_conflict_of_a_merge_are_named_as_that(project: Path) -> None:
    text = (project / "params.yaml").read_text().replace("\nrdm:", "\n<<<<<<< HEAD\nrdm:", 1)
    (project / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"params\.yaml holds the conflict of a git merge[\s\S]*line \d+"):
        load_sections(project / "params.yaml")


@pytest.mark.parametrize("text", ["stages: [", "", "stages: {collect: 3}"])
def test_a_damaged_file_is_stale(project: Path, text: str) -> None:
    (project / "dvc.yaml").write_text(text)
    with pytest.raises(ConfigError, match="stale"):
        check_plan(project)
    write_plan(project)
    check_plan(project)


def test_a_preset_brings_its_plan(project: Path) -> None:
    (project / "params.yaml").unlink()
    told = rcg("preset", "use", "digits")
    assert "dvc.yaml is new" in told
    check_plan(project)
    assert "dvc.yaml" not in rcg("preset", "use", "smoke")


def test_a_plan_holds_what_dvc_needs() -> None:
    stages = yaml.safe_load(plan_text(yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())))["stages"]
    assert stages["rdm"]["cmd"] == "rcg run rdm"
    assert stages["rdm"]["params"] == ["rdm"]
    assert stages["rdm"]["outs"] == ["artifacts/rdm"]
    assert stages["rdm"]["deps"] == ["artifacts/encode/manifest.json", *code_deps("flows.stages.rdm.run")]
    assert stages["encoder"]["deps"][0] == "artifacts/collect/base.json"
    assert stages["collect"]["deps"][0] == "collection.lock"


def test_code_deps_are_folders_of_components_and_stages() -> None:
    deps = code_deps("flows.stages.rdm.run")
    assert {"components/rdm", "components/nn", "components/rng.py", "flows/stages/rdm"} <= set(deps)
    assert not any(dep.startswith("components/rdm/") for dep in deps)
    assert all((ROOT / dep).exists() for dep in deps)
