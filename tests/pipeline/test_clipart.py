"""Real color clip art through all nine stages: alpha, palettes, resizing, vqgan tokens and mage."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from components.collection.snapshot import take_snapshot
from components.collection.source import open_source
from components.store import open_store
from flows.execution.work import Doing, make_spec, run_and_publish
from flows.executors import open_executor
from flows.pipeline.params import load_params
from flows.pipeline.table import pipeline
from flows.runs.workspace import Workspace
from flows.settings import WorkerSettings
from tests.support.pipelines import stages_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All nine stages on some 320 pictures, inline."""
    root = tmp_path_factory.mktemp("clipart")
    with zipfile.ZipFile(ROOT / "tests/data/clipart.zip") as archive:
        archive.extractall(root / "pictures")
    source = str(root / "pictures")
    lock = root / "collection.lock"
    take_snapshot(open_source(source), lock, rebuild=False, chunk_size=100)
    sections = load_params(ROOT / "presets/clipart-test.yaml").model_dump(mode="json")
    store = open_store(str(root / "store"))
    doing = Doing(store, open_executor("inline"), WorkerSettings(device="cpu", threads=2))
    for stage in pipeline(sections).values():
        text = None if stage.needs else lock.read_text()
        spec = make_spec(stage, sections[stage.name], store, root, source=source, lock=text)
        run_and_publish(stage, spec, root, doing)
    return root


def test_every_picture_was_read_or_named(workspace: Path) -> None:
    metrics = json.loads((workspace / "artifacts/collect/metrics.json").read_text())
    assert metrics["images"] + metrics["rejected"] == len(list((workspace / "pictures").rglob("*.*g")))
    assert metrics["rejected"] / metrics["images"] <= 0.02


def test_codec_learned_more_than_a_flat_color(workspace: Path) -> None:
    metrics = json.loads((workspace / "artifacts/codec/metrics.json").read_text())
    assert metrics["psnr_db"] > 8
    assert metrics["codes_used"] > 0.1


def test_pictures_are_there_to_look_at(workspace: Path) -> None:
    for path in (
        "sample/pictures/grid.png",
        "codec/pictures/reconstructions.png",
        "evaluate/pictures/neighbors.png",
        "encoder/pictures/neighbors.png",
    ):
        assert (workspace / "artifacts" / path).stat().st_size > 1000


def test_bundle_draws_and_varies_a_real_picture(workspace: Path, tmp_path: Path) -> None:
    from components.bundle.request import Request
    from flows.execution.project import Project
    from flows.lineage.sampling import open_picture, write_samples
    from flows.settings import Settings

    shutil.copytree(workspace / "artifacts/bundle", tmp_path / "bundle")
    picture = next((workspace / "pictures").rglob("*.png"))
    request = Request(n=3, like=open_picture(picture))
    project = Project(tmp_path, Settings(mlflow_uri="off"))
    write_samples(request, project, model=str(tmp_path / "bundle"), out=tmp_path / "like")
    assert len(list((tmp_path / "like").glob("*.png"))) >= 4


def test_all_stages_are_committed(workspace: Path) -> None:
    for name in stages_of("clipart-test"):
        assert Workspace(workspace).pointer(name) is not None
