"""Bundles in the registry: one version per digest, where they lie, loadable by MLflow; references and mistakes."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.bundle.bundle import Bundle
from components.bundle.integrity import bundle_digest
from components.bundle.provenance import read_provenance
from components.bundle.request import Picture, Request
from components.errors import (
    ArtifactError,
    ConfigError,
    MissingError,
    RcgError,
    RetryableError,
    TamperedError,
    WeightsError,
)
from components.images.pictures import to_uint8
from components.store import open_store
from components.store.base import Store
from flows.execution.project import Project
from flows.lineage.sampling import write_samples
from flows.lineage.trace import lineage_of
from flows.lineage.verification import VerifyRequest, verify
from flows.registry import Registered, look, peek, register, resolve
from flows.registry.references import DIGEST
from flows.runs.records import CommittedRun
from flows.settings import TrackingSettings
from flows.tracking import Tracking, resolve_tracking
from flows.tracking.client import open_client
from tests.support.bundles import commit_bundle, make_bundle
from tests.support.folders import draw_bars
from tests.support.mlflow_database import make_tracking

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*type hint:UserWarning")
REPO = Path(__file__).parents[2]
MODELS = Path(".rcg/models")
TAGS = {"git_commit": "abc", "dvc_lock": "d" * 64}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def tracking(root: Path) -> Tracking:
    return make_tracking(root)


@pytest.fixture(scope="module")
def store(root: Path) -> Store:
    return open_store(root / "store")


@pytest.fixture(scope="module")
def run(root: Path, store: Store) -> CommittedRun:
    return commit_bundle(store, make_bundle(root / "work"))


@pytest.fixture
def registered(tracking: Tracking, store: Store, run: CommittedRun) -> str:
    return register(tracking, store, run, name="rcg", tags=TAGS)


def test_same_bundle_is_registered_once_and_the_alias_comes_back(
    root: Path, tracking: Tracking, store: Store, run: CommittedRun, registered: str
) -> None:
    assert registered == "models:/rcg/1 (challenger)"
    assert register(tracking, store, run, name="rcg", tags=TAGS) == registered
    other = commit_bundle(store, make_bundle(root / "other", with_encoder=False))
    assert register(tracking, store, other, name="rcg", tags=TAGS) == "models:/rcg/2 (challenger)"
    client = open_client(tracking.uri)
    assert client.get_model_version_by_alias("rcg", "challenger").version == 2
    assert register(tracking, store, run, name="rcg", tags=TAGS) == registered
    assert client.get_model_version_by_alias("rcg", "challenger").version == 1
    assert len(client.search_model_versions("name = 'rcg'")) == 2


def test_a_bundle_whose_folder_is_gone_is_registered_where_it_is_now(tmp_path: Path, tracking: Tracking) -> None:
    bundle = make_bundle(tmp_path / "work")
    old, new = open_store(tmp_path / "old"), open_store(tmp_path / "new")
    first = register(tracking, old, commit_bundle(old, bundle), name="moved", tags=TAGS)
    shutil.rmtree(tmp_path / "old")
    with pytest.raises(MissingError, match="not there"):
        resolve("models:/moved@challenger", tracking, MODELS)
    second = register(tracking, new, commit_bundle(new, bundle), name="moved", tags=TAGS)
    assert (first, second) == ("models:/moved/1 (challenger)", "models:/moved/2 (challenger)")
    assert bundle_digest(resolve("models:/moved@challenger", tracking, MODELS)) == bundle.digest


def test_version_says_where_it_came_from(tracking: Tracking, store: Store, run: CommittedRun, registered: str) -> None:
    version = open_client(tracking.uri).get_model_version_by_alias("rcg", "challenger")
    assert version.source == f"{store.uri}/{run.prefix}/out/1", "not copied"
    tags = version.tags
    assert tags["rcg.bundle_digest"] == run.digest
    assert tags["rcg.git_commit"] == "abc"
    assert tags["rcg.dvc_lock"] == "d" * 64
    assert tags["rcg.metric.fd"] == "1.5"
    assert len(tags["rcg.content.rdm"]) == 64
    assert run.digest[:10] in look(tracking, "rcg").describe("challenger")


def test_status_shows_the_registry_without_importing_mlflow(root: Path, registered: str, run: CommittedRun) -> None:
    shutil.copy2(REPO / "presets/smoke.yaml", root / "params.yaml")
    shutil.copy2(REPO / "collection.lock", root)
    heavy = {"mlflow", "sqlalchemy", "pandas", "torch", "sklearn", "scipy", "dvc", "ray"}
    script = (
        "import sys; from flows.commands.table import app; app(['status'], standalone_mode=False); "
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RCG_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env=environment | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert any("no champion yet" in line for line in lines)
    assert any("challenger is version" in line and run.digest[:10] in line for line in lines)
    assert any("5000 pictures" in line for line in lines)


def test_a_look_sees_what_mlflow_sees(tracking: Tracking, registered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = open_client(tracking.uri)
    client.set_registered_model_alias("rcg", "champion", "1")
    number = client.create_model_version("rcg", "file:///elsewhere", tags={"rcg.metric.fd": "2"}).version
    client.set_registered_model_alias("rcg", "gone", number)
    read = look(tracking, "rcg")
    assert read.tags[int(number)] == {"rcg.metric.fd": "2"}
    monkeypatch.setattr(peek, "SQLITE", "never")  # so that MLflow is asked
    assert look(tracking, "rcg") == read
    client.delete_model_version("rcg", number)
    asked = look(tracking, "rcg")
    monkeypatch.undo()
    assert look(tracking, "rcg") == asked
    assert int(number) not in asked.tags
    client.delete_registered_model_alias("rcg", "champion")


def test_a_look_at_a_registry_that_is_not_there_makes_none(tmp_path: Path) -> None:
    found = resolve_tracking(TrackingSettings(mlflow_uri="sqlite:///mlflow.db"), tmp_path)
    assert found is not None
    assert look(found, "rcg") == Registered("rcg", {}, {})
    assert not list(tmp_path.iterdir())


def test_references_become_folders(tracking: Tracking, store: Store, run: CommittedRun, registered: str) -> None:
    folder = resolve("models:/rcg@challenger", tracking, MODELS)
    assert folder == resolve("models:/rcg/1", tracking, MODELS)
    assert bundle_digest(folder) == run.digest
    assert resolve(str(folder), None, MODELS) == folder


def test_mlflow_loads_it_by_alias_and_draws_the_same_bits(tracking: Tracking, registered: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(tracking.uri)
    model = mlflow.pyfunc.load_model("models:/rcg@challenger")
    bundle = Bundle.load(resolve("models:/rcg@challenger", tracking, MODELS))
    answer = model.predict(pd.DataFrame([{"class": None}]), params={"n": 3, "seed": 5, "guidance": 1.0})

    assert (_pixels(answer) == to_uint8(bundle.sample(Request(n=3, seed=5, guidance=1.0)))).all()
    picture = Image.fromarray(draw_bars(1)[0][0])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    like = model.predict([{"image": base64.b64encode(buffer.getvalue()).decode()}], params={"n": 2, "seed": 5})
    assert (_pixels(like) == to_uint8(bundle.sample(Request(n=2, seed=5, like=Picture(buffer.getvalue()))))).all()
    assert model.input_example is not None
    assert len(model.predict(model.input_example)) == 1
    with pytest.raises(mlflow.exceptions.MlflowException):
        model.predict([{"class": None}], params={"n": "many"})


def _pixels(answer: Any) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in answer["image"]])


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("models:/rcg@champion", MissingError, r"no such model[\s\S]*@challenger"),
        ("models:/rcg/99", MissingError, r"no such model[\s\S]*versions 1"),
        ("models:/nobody@challenger", MissingError, "no model named nobody"),
        ("models:/rcg", ConfigError, "not a model reference"),
        ("nowhere", MissingError, "not there"),
    ],
)
def test_wrong_references_are_named(
    tracking: Tracking, registered: str, reference: str, error: type[RcgError], message: str
) -> None:
    with pytest.raises(error, match=message):
        resolve(reference, tracking, MODELS)


def test_foreign_models_and_folders_are_refused(tmp_path: Path, tracking: Tracking, registered: str) -> None:
    client = open_client(tracking.uri)
    client.create_registered_model("foreign")
    client.create_model_version("foreign", tmp_path.as_uri())
    with pytest.raises(ArtifactError, match="not registered by rcg"):
        resolve("models:/foreign/1", tracking, MODELS)
    for digest in ("../../../planted", "0" * 63, "0" * 64 + "/../x"):
        client.create_model_version("foreign", "s3://elsewhere/store/runs/bundle/x/out/1", tags={DIGEST: digest})
    for number in (2, 3, 4):
        with pytest.raises(ArtifactError, match="not registered by rcg"):
            resolve(f"models:/foreign/{number}", tracking, MODELS)
    with pytest.raises(ArtifactError, match="not a bundle"):
        resolve(str(tmp_path), None, MODELS)
    with pytest.raises(ConfigError, match="switched off"):
        resolve("models:/rcg/1", None, MODELS)


def test_tampered_and_missing_bundles_of_a_version_are_refused(
    tmp_path: Path, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "store")
    register(tracking, store, commit_bundle(store, make_bundle(tmp_path / "work")), name="altered", tags=TAGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCG_MLFLOW_URI", tracking.uri)
    folder = resolve("models:/altered@challenger", tracking, MODELS)
    (folder / "rcg.json").write_text((folder / "rcg.json").read_text() + " ")
    for command in (
        lambda: write_samples(Request(), Project.here(), model="models:/altered@challenger", out=tmp_path / "drawn"),
        lambda: lineage_of("models:/altered/1", Project.here()),
    ):
        with pytest.raises(TamperedError, match="not the one that was registered"):
            command()
    assert not (tmp_path / "drawn").exists()
    shutil.rmtree(folder)
    with pytest.raises(MissingError, match="not there"):
        lineage_of("models:/altered@challenger", Project.here())
    open_client(tracking.uri).delete_model_version("altered", "1")
    with pytest.raises(MissingError, match="no such model"):
        lineage_of("models:/altered/1", Project.here())


def test_a_kept_bundle_that_was_damaged_is_fetched_anew(
    tmp_path: Path, tracking: Tracking, store: Store, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, here = open_client(tracking.uri), resolve("models:/rcg@challenger", tracking, MODELS)
    client.create_registered_model("far")
    client.create_model_version(
        "far", f"s3://far/{here.relative_to(here.parents[4])}", tags={DIGEST: bundle_digest(here)}
    )
    monkeypatch.setattr("flows.registry.references.open_store", lambda _: store)
    try:
        kept = resolve("models:/far/1", tracking, tmp_path)
        assert bundle_digest(kept) == bundle_digest(here)
        (kept / "rcg.json").write_text("{}")
        assert resolve("models:/far/1", tracking, tmp_path) == kept
        assert bundle_digest(kept) == bundle_digest(here)
    finally:
        client.delete_registered_model("far")  # others look for bundles by their digest


def test_lineage_and_verify_by_alias(
    root: Path, tmp_path: Path, tracking: Tracking, run: CommittedRun, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("RCG_MLFLOW_URI", tracking.uri)
    assert lineage_of("models:/rcg@challenger", Project.here()).bundle == run.digest
    write_samples(Request(n=2, seed=3), Project.here(), model="models:/rcg/1", out=tmp_path / "drawn")
    monkeypatch.chdir(tmp_path)  # no bundle beside and none in this store: the registry knows it by digest
    assert verify(VerifyRequest(tmp_path / "drawn/0001.png"), Project.here()).verdict == "identical"


def test_a_bundle_that_does_not_load_is_not_registered(tmp_path: Path, tracking: Tracking, registered: str) -> None:
    broken = make_bundle(tmp_path / "work")
    broken.write_bytes("pixels/weights.safetensors", b"not tensors")
    store = open_store(tmp_path / "store")
    run = commit_bundle(store, broken)
    with pytest.raises(WeightsError):
        register(tracking, store, run, name="rcg", tags=TAGS)
    client = open_client(tracking.uri)
    assert not client.search_model_versions(f"tags.`rcg.bundle_digest` = '{run.digest}'")


def test_mlflow_down_is_retryable(tmp_path: Path, store: Store, run: CommittedRun) -> None:
    down = Tracking(uri="http://127.0.0.1:9", experiment="rcg", artifacts=None, state=tmp_path)
    with pytest.raises(RetryableError, match="does not answer"):
        register(down, store, run, name="rcg", tags=TAGS)


def test_rcg_sample_by_alias(
    root: Path, tmp_path: Path, tracking: Tracking, run: CommittedRun, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("RCG_MLFLOW_URI", tracking.uri)
    request = Request(n=4, seed=9)
    write_samples(request, Project.here(), model="models:/rcg@challenger", out=tmp_path / "drawn")
    assert (tmp_path / "drawn/grid.png").is_file()
    bundle = Bundle.load(resolve("models:/rcg@challenger", tracking, MODELS))
    expected = to_uint8(bundle.sample(request))
    for i in range(4):
        with Image.open(tmp_path / f"drawn/{i:04d}.png") as picture:
            assert (np.asarray(picture) == expected[i]).all()
        claim = read_provenance((tmp_path / f"drawn/{i:04d}.png").read_bytes())
        assert (claim.bundle, claim.seed, claim.index, claim.n) == (run.digest, 9, i, 4)
    assert json.loads((resolve("models:/rcg/1", tracking, MODELS) / "rcg.json").read_text())["schema_version"] == 2
