"""`rcg lineage`: from a picture, a manifest, a stage or a bundle to everything above it, offline."""

import json
import shutil
from pathlib import Path

import pytest

from components.bundle.integrity import bundle_digest
from components.bundle.provenance import Provenance, with_provenance
from components.errors import ArtifactError, ConfigError, MissingError, TamperedError
from components.images.pictures import png_bytes
from components.store import open_store
from flows.execution.project import Project
from flows.lineage.tombstones import Tombstone
from flows.lineage.trace import Lineage
from flows.lineage.trace import lineage_of as lineage_in
from flows.pages.lineage import write_html
from flows.runs.ancestry import CONTEXT, keep_context
from flows.runs.transfer import data_copy
from tests.support.claims import a_claim
from tests.support.cli import rcg
from tests.support.made_project import CONTEXT as CIRCUMSTANCES
from tests.support.made_project import START_MS, MadeProject, some_pictures
from tests.support.pipelines import stages_of

STAGES = stages_of("smoke")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> MadeProject:
    return MadeProject(tmp_path_factory.mktemp("made"), versions=2)


@pytest.fixture
def made(template: MadeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeProject:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCG_MLFLOW_URI", "off")
    return template.copy_to(tmp_path)


def lineage_of(reference: str, model: str | None = None) -> Lineage:
    return lineage_in(reference, Project.here(), model)


def _claim(made: MadeProject, **changes: object) -> Provenance:
    return a_claim(**{"bundle": made.newest["bundle"].digest, "platform": {"machine": "x86_64"}} | changes)


def _picture(path: Path, claim: Provenance) -> str:
    path.write_bytes(with_provenance(png_bytes(some_pictures(1, 0)[0]), claim))
    return str(path)


def test_a_bundle_alone_tells_everything(made: MadeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = tmp_path.parent / f"{tmp_path.name}-alone"
    shutil.copytree("artifacts/bundle", alone)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    found = lineage_of(str(alone))
    assert list(found.stages) == list(STAGES)
    assert {name: facts.content for name, facts in found.stages.items()} == {
        n: r.digest for n, r in made.newest.items()
    }
    assert list((tmp_path / "empty").iterdir()) == [], "it only looks"
    text = rcg("lineage", str(alone))
    for wanted in (
        found.stages["rdm"].code[:10] if found.stages["rdm"].code else "?",
        CIRCUMSTANCES["git_commit"][:10],
        CIRCUMSTANCES["image"][-20:],
        CIRCUMSTANCES["rayjob"],
        "seed=0",
        "torch 2.15.0",
        "552 pictures",
        "2 x cpu",
        '"version": 2',
        "fd: 1.0",
    ):
        assert wanted in text, wanted
    told = json.loads(rcg("lineage", str(alone), "--json"))
    assert told["bundle"] == made.newest["bundle"].digest
    assert told["stages"]["pixels"]["params"] == {"numerics": 1, "seed": 0, "version": 2}
    assert told["stages"]["pixels"]["context"] == CIRCUMSTANCES


def test_a_stage_and_its_manifest_tell_the_same(made: MadeProject) -> None:
    stage, manifest = lineage_of("sample"), lineage_of("artifacts/sample/manifest.json")
    assert stage == manifest
    assert list(stage.stages)[-1] == "sample"
    assert set(stage.stages) == {"collect", "encoder", "codec", "encode", "rdm", "pixels", "sample"}
    old = Path("old.json")
    old.write_bytes(made.store.get(f"{made.runs[0]['sample'].prefix}/manifest.json"))
    assert lineage_of("old.json").stages["rdm"].content == made.runs[0]["rdm"].digest


def test_samples_json(made: MadeProject) -> None:
    parents = {"pixels": made.newest["pixels"].digest, "rdm": "f" * 64}
    Path("samples.json").write_text(json.dumps({"n": 1, "parents": parents}))
    stages = lineage_of("samples.json").stages
    assert stages["encode"].content == made.newest["encode"].digest
    assert stages["rdm"].fingerprint is None
    assert "not known here" in rcg("lineage", "samples.json")


def test_a_picture_names_its_bundle(made: MadeProject) -> None:
    found = lineage_of(_picture(Path("a.png"), _claim(made)))
    assert found.bundle == made.newest["bundle"].digest
    assert found.picture is not None
    assert "picture 7 of seed 3" in found.subject
    older = lineage_of(_picture(Path("b.png"), _claim(made, bundle=made.runs[0]["bundle"].digest)))
    assert older.stages["rdm"].content == made.runs[0]["rdm"].digest, "found in the store by its digest"


def test_a_picture_of_the_sample_stage(made: MadeProject) -> None:
    parents = {stage: made.newest[stage].digest for stage in ("rdm", "pixels", "codec")}
    path = _picture(Path("grid.png"), _claim(made, bundle=None, parents=parents, index=None, shown=4))
    assert lineage_of(path).bundle == made.newest["bundle"].digest
    gone = _picture(Path("gone.png"), _claim(made, bundle=None, parents=parents | {"rdm": "f" * 64}))
    assert lineage_of(gone).bundle is None
    assert lineage_of(gone).stages["pixels"].fingerprint == made.newest["pixels"].fingerprint


def test_pictures_of_bundles_that_are_not_here(made: MadeProject) -> None:
    path = _picture(Path("a.png"), _claim(made, bundle="f" * 64))
    with pytest.raises(MissingError, match=r"not here[\s\S]*ffff"):
        lineage_of(path)
    with pytest.raises(ArtifactError, match="names another bundle"):
        lineage_of(path, "artifacts/bundle")


def test_context_survives_what_it_tells_of(made: MadeProject, tmp_path: Path) -> None:
    bundle = made.newest["bundle"]
    first = keep_context(made.store, bundle)
    shutil.rmtree(tmp_path / ".rcg/store/runs/encoder")
    assert keep_context(made.store, bundle) == first
    assert lineage_of("artifacts/bundle").stages["encoder"].params is not None
    other = open_store(tmp_path / "other")
    data_copy(made.store, other, {bundle.prefix: bundle.digest})
    assert keep_context(other, bundle) == first
    assert lineage_of("rdm").stages["encoder"].fingerprint is None, "named by its content alone"


def test_digest_of_the_bundle_does_not_know_its_context(made: MadeProject) -> None:
    before = bundle_digest(Path("artifacts/bundle"))
    Path("artifacts/bundle", CONTEXT).unlink()
    assert bundle_digest(Path("artifacts/bundle")) == before == made.newest["bundle"].digest
    assert lineage_of("artifacts/bundle").stages["rdm"].fingerprint is None


def test_altered_bundles_are_named(made: MadeProject) -> None:
    Path("artifacts/bundle/rcg.json").write_text('{"seed": 1}')
    with pytest.raises(TamperedError, match="not those that were committed"):
        lineage_of("artifacts/bundle")
    Path("artifacts/bundle/lineage.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"lineage\.json is not valid JSON"):
        lineage_of("artifacts/bundle")


def test_what_was_erased_since_is_said(made: MadeProject) -> None:
    stone = Tombstone(
        schema_version=1,
        sha256="9" * 64,
        keys=["a.png"],
        models=["models:/rcg/2"],
        erased=[],
        who="me",
        collections=[made.newest["collect"].digest],
        time_ms=START_MS,
    )
    assert "erased" not in rcg("lineage", "rdm")
    made.store.put(f"forgotten/{stone.sha256}.json", stone.to_json())
    assert "  9999999999 on 2025-06-15; trained on it: models:/rcg/2" in rcg("lineage", "artifacts/bundle")
    write_html(lineage_of("rdm"), Path("l.html"))
    assert "trained on it: models:/rcg/2" in Path("l.html").read_text()


@pytest.mark.parametrize("reference", ["nowhere", "none.png", "."])
def test_unknown_references_are_named(made: MadeProject, reference: str) -> None:
    with pytest.raises(MissingError):
        lineage_of(reference)


def test_clock_that_went_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A duration that would be negative is left out; nothing is sorted by time."""
    monkeypatch.chdir(tmp_path)
    made = MadeProject(tmp_path, versions=1)
    facts = lineage_of("rdm").stages["rdm"]
    from flows.runs.ancestry import made_at, took

    assert took(facts) == "30 min"
    back = facts.model_copy(update={"ended_ms": 1})
    assert (took(back), made_at(back)) == ("", "1970-01-01 00:00")
    assert made.newest["rdm"].digest == facts.content


def test_html_holds_everything_and_fetches_nothing(made: MadeProject) -> None:
    assert "lineage of" in rcg("lineage", "artifacts/bundle", "--html", "pages/l.html")
    text = Path("pages/l.html").read_text()
    for run in made.newest.values():
        assert run.digest in text
    assert CIRCUMSTANCES["image"] in text
    assert "http://" not in text.replace('xmlns="http://', "")
    assert "<script" not in text
    with pytest.raises(ConfigError, match="file name"):
        write_html(lineage_of("artifacts/bundle"), Path("pages"))
