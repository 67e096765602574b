"""What is told before the work: labels that are none, too few pictures to measure on."""

import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from components.collection.snapshot import take_snapshot
from components.collection.source import open_source
from flows.__main__ import app
from flows.execution.foresight import concerns
from flows.execution.project import Project
from flows.identity.fingerprint import LOCK
from flows.settings import load_settings
from tests.support.projects import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "presets/smoke.yaml", "params.yaml")
    return Project(tmp_path, load_settings())


def take(project: Project, *keys: str, labels: str = "none", dim: int = 2) -> list[str]:
    for i, key in enumerate(keys):
        path = project.root / "pictures" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    params = yaml.safe_load((project.root / "params.yaml").read_text())
    params["collect"]["labels"], params["evaluate"]["features"]["dim"] = labels, dim
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    take_snapshot(open_source(str(project.root / "pictures")), project.root / LOCK, rebuild=True)
    return concerns(Project(project.root, project.settings))


def test_nothing_to_say_of_a_collection_that_suffices(project: Project) -> None:
    keys = [f"{'cats' if i % 2 else 'dogs'}/{i}.png" for i in range(100)]
    assert take(project, *keys, labels="folder") == []
    assert concerns(Project(project.root.parent, project.settings)) == [], "no project, no lock"


@pytest.mark.parametrize(("folder", "found"), [("", "no picture lies in one"), ("cats/", "all pictures lie in cats")])
def test_folders_that_label_nothing(folder: str, found: str, project: Project) -> None:
    [told] = take(project, *(f"{folder}{i}.png" for i in range(100)), labels="folder")
    assert f"collect.labels is folder, but {found}" in told


def test_too_few_held_out_pictures_for_the_features(project: Project) -> None:
    [told] = take(project, *(f"{i}.png" for i in range(100)), dim=64)
    assert "evaluate will be refused: about 20 of 100 pictures are held out (test)" in told
    assert "dim: 4" in told


def test_commands_tell_it(project: Project) -> None:
    take(project, *(f"{i}.png" for i in range(100)), dim=64)
    for command in (("explain",), ("snapshot", str(project.root / "pictures"))):
        told = CliRunner().invoke(app, command)
        assert told.exit_code == 0
        assert "warning: evaluate will be refused" in told.stderr
