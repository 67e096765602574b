"""What is told before the work: labels that are none, too few pictures to measure on."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from components.collection.snapshot import take_snapshot
from components.collection.source import open_source
from flows.commands.table import app
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


@pytest.mark.parametrize(
    ("metadata", "found"), [(None, "there is none"), ("file_name,text\n0.png,a digit\n", "it labels no picture")]
)
def test_metadata_that_labels_nothing(metadata: str | None, found: str, project: Project) -> None:
    (project.root / "pictures").mkdir()
    if metadata:
        (project.root / "pictures/metadata.csv").write_text(metadata)
    settings = load_settings().model_copy(update={"source": str(project.root / "pictures")})
    told = take(Project(project.root, settings), *(f"{i}.png" for i in range(100)), labels="metadata")
    assert f"collect.labels is metadata, but {found}" in told[0]


def test_metadata_that_labels_is_not_told(project: Project) -> None:
    (project.root / "pictures").mkdir()
    (project.root / "pictures/metadata.csv").write_text("file_name,label\n0.png,cat\n")
    settings = load_settings().model_copy(update={"source": str(project.root / "pictures")})
    assert not take(Project(project.root, settings), *(f"{i}.png" for i in range(100)), labels="metadata")


def test_too_few_held_out_pictures_for_the_features(project: Project) -> None:
    [told] = take(project, *(f"{i}.png" for i in range(100)), dim=64)
    assert "evaluate will be refused: about 20 of 100 pictures are held out (test)" in told
    assert "dim: 4" in told


def _with(project: Project, section: str, key: str, value: int) -> list[str]:
    params = yaml.safe_load((project.root / "params.yaml").read_text())
    params[section][key] = value
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    return take(project, *(f"{i}.png" for i in range(100)))


@pytest.mark.parametrize(
    ("section", "key", "value", "found"),
    [("sample", "n", 3, "3 are sampled"), ("evaluate", "k_neighbors", 20, "about 20 are held out")],
)
def test_too_few_pictures_for_their_neighbors(section: str, key: str, value: int, found: str, project: Project) -> None:
    [told] = _with(project, section, key, value)
    assert "evaluate will be refused: precision and recall need more than" in told
    assert found in told


def test_commands_tell_it(project: Project) -> None:
    take(project, *(f"{i}.png" for i in range(100)), dim=64)
    for command in (("explain",), ("snapshot", str(project.root / "pictures"))):
        told = CliRunner().invoke(app, command)
        assert told.exit_code == 0
        assert "warning: evaluate will be refused" in told.stderr


def _with_captions(project: Project, captions: str, **sections: Any) -> list[str]:
    (project.root / "pictures").mkdir()
    (project.root / "pictures/metadata.csv").write_text(f"file_name,text\n0.png,{captions}\n")
    params = yaml.safe_load((project.root / "params.yaml").read_text()) | sections
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    project = Project(project.root, load_settings().model_copy(update={"source": str(project.root / "pictures")}))
    return take(project, *(f"{i}.png" for i in range(100)))


def test_captions_that_nothing_reads(project: Project) -> None:
    [told] = _with_captions(project, "a red square")
    assert "1 picture(s) have a caption that nothing reads" in told


def test_a_section_text_without_captions(project: Project) -> None:
    words = {"kind": "words", "dim": 8, "max_tokens": 4, "seed": 0}
    [told] = _with_captions(project, "", text={"numerics": 1, "encoder": words, "states": False, "joint": None})
    assert "no picture has a caption" in told
    (project.root / "pictures/metadata.csv").write_text("file_name,text\n0.png,another now\n")
    assert concerns(Project(project.root, project.settings)) == [], "that it changed is for collect to say"


def test_more_gaussians_than_training_pictures(project: Project) -> None:
    rdm = yaml.safe_load((project.root / "params.yaml").read_text())["rdm"]
    base = {"kind": "gaussians", "k": 81, "kappa": 1.0, "learnable": False, "index": False}
    rdm["model"]["base"] = base | {"choice": {"by": "frequencies"}}
    params = yaml.safe_load((project.root / "params.yaml").read_text()) | {"rdm": rdm}
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    [told] = take(project, *(f"{i}.png" for i in range(100)))
    assert "rdm will be refused: 81 Gaussians (rdm.model.base.k) of about" in told
