"""The README's way through DVC, for real: repro, repro again, edits, clones, other stores, and input that is wrong."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.pipelines import stages_of
from tests.support.projects import Project
from tests.support.remade import artifact_content, lock_content

STAGES = stages_of("smoke")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    base = tmp_path_factory.mktemp("repro")
    made = Project(base / "project", base / "store")
    made.copy_code()
    made.rcg("preset", "use", "smoke")
    made.rcg("snapshot", "demo")
    for stage in STAGES:
        made.rcg("run", stage)
    made.run("dvc", "commit", "-q", "-f")
    made.commit()
    yield made
    shutil.rmtree(base)


def test_every_stage_left_its_artifact(project: Project) -> None:
    assert len(project.runs()) == len(STAGES)
    for name in STAGES:
        assert (project.root / "artifacts" / name / "manifest.json").is_file()
    assert (project.root / "artifacts/evaluate/report.html").stat().st_size > 10_000
    assert "fd" in project.run("dvc", "metrics", "show")


def test_second_repro_runs_nothing(project: Project) -> None:
    text = project.run("rcg", "repro")
    assert "Running stage" not in text
    assert "up to date" in text


def test_status_and_explain_say_that_all_is_done(project: Project) -> None:
    status = project.rcg("status")
    assert status.count(" done ") == len(STAGES)
    assert project.rcg("explain").count("will not run") == len(STAGES)


def test_what_a_killed_dvc_left_is_mended(project: Project) -> None:
    """Plain dvc stops at each of these, or forgets; `rcg doctor` names them; `rcg repro` goes on. Two at a time."""
    rwlock, lock = project.root / ".dvc/tmp/rwlock", project.root / "dvc.lock"
    whole = lock.read_bytes()
    for left, text, n_kept in (
        (b'{"write": {"a', "file of locks was torn", 900),
        (
            b'{"read": {"%s": [{"pid": 1, "cmd": "dvc repro"}]}, "write": {"%s": {"pid": 1, "cmd": "dvc repro"}}}'
            % ((str(project.root / "artifacts/rdm").encode(),) * 2),
            "named processes that have ended",
            0,
        ),
    ):
        rwlock.write_bytes(left)
        project.run("dvc", "repro", "--force", "--single-item", "rdm", code=255)
        lock.write_bytes(whole[:n_kept])
        ill = project.rcg("doctor", code=2)
        assert ".dvc/tmp/rwlock" in ill
        assert "dvc.lock" in ill
        told = project.run("rcg", "repro")
        assert text in told
        assert "dvc.lock was torn" in told
        assert "Running stage" not in told
        assert lock.read_bytes() == whole
    project.rcg("doctor")


def test_comment_makes_no_new_run(project: Project) -> None:
    before, path, lock = project.runs(), project.root / "flows/stages/evaluate/run.py", project.root / "dvc.lock"
    text, locked = path.read_text(), lock.read_bytes()
    path.write_text(f"{text}\n# a remark\n")
    try:
        told = project.run("rcg", "repro")
        assert "Running stage 'evaluate'" in told, "DVC looks"
        assert told.count("Running stage") == told.count("already done") == 1, "the store knows"
        assert project.runs() == before
    finally:
        path.write_text(text)
        lock.write_bytes(locked)
    assert "Running stage" not in project.run("dvc", "repro"), "the next test finds it as it was"


def test_sampling_options_never_retrain(project: Project) -> None:
    params = project.root / "params.yaml"
    text = params.read_text()
    project.edit("params.yaml", "guidance: 0.5", "guidance: 0.25")
    try:
        told = project.rcg("explain")
        assert "sample: will run" in told
        assert "param pixels.guidance: 0.5 -> 0.25" in told
        assert told.count("will not run") == 6  # collect … pixels
        assert "evaluate: waits for sample" in told
    finally:
        params.write_text(text)


def test_workers_device_and_place_of_the_store_are_no_identity(project: Project, tmp_path: Path) -> None:
    moved = Project(project.root, tmp_path / "moved")
    shutil.copytree(project.store, moved.store)
    told = moved.rcg("explain", RCG_WORKERS="2", RCG_DEVICE="cpu", RCG_THREADS="4")
    assert told.count("will not run") == len(STAGES)


def test_clone_without_dvc_lock_makes_what_the_store_lacks_and_finds_the_rest(project: Project, tmp_path: Path) -> None:
    """Made in a process of its own, a bundle has the bytes that it had in this one."""
    clone = project.clone(tmp_path / "clone", tmp_path / "store")
    shutil.copytree(project.store, clone.store)
    (clone.root / "dvc.lock").unlink()
    for stage in ("collect", "bundle"):
        shutil.rmtree(clone.store / "runs" / stage)
    told = clone.run("rcg", "repro", RCG_SOURCE="demo")
    assert told.count("already done") == len(STAGES) - 2
    assert clone.runs() == project.runs()
    assert artifact_content(clone.root) == artifact_content(project.root)
    assert lock_content(clone.root / "dvc.lock") == lock_content(project.root / "dvc.lock")
    before, after = (json.loads((p.root / "artifacts/bundle/context.json").read_bytes()) for p in (project, clone))
    moved = {stage for stage, facts in before["stages"].items() if facts != after["stages"][stage]}
    assert moved == {"collect", "bundle"}, "when, where and from which commit they were made, and nothing else"


def test_clone_with_another_store_is_told_how_to_mend_it(project: Project, tmp_path: Path) -> None:
    project.run("dvc", "remote", "add", "-f", "-d", "shared", str(tmp_path / "remote"))
    project.run("dvc", "remote", "modify", "shared", "verify", "true")
    project.run("dvc", "push", "-q")
    project.commit()
    clone = project.clone(tmp_path / "clone", tmp_path / "empty")
    clone.run("dvc", "pull", "-q")
    clone.rcg("sample", "--model", "artifacts/bundle", "-n", "4", "--out", "drawn")  # the bundle needs no store
    assert len(list((clone.root / "drawn").glob("*.png"))) == 5
    told = clone.rcg("run", "rdm", code=3)
    assert "rcg data copy --from" in told
    clone.rcg("data", "copy", "--from", str(project.store))
    assert "rdm: already done" in clone.rcg("run", "rdm")


def test_params_that_are_wrong_are_all_named_before_anything_starts(project: Project) -> None:
    params = project.root / "params.yaml"
    text = params.read_text()
    before = project.runs()
    data = yaml.safe_load(text)
    data["rdm"]["model"]["dim"] = 17
    data["sample"]["rdm"]["steps"] = 5000
    params.write_text(yaml.safe_dump(data))
    try:
        told = project.rcg("run", "rdm", code=2)
        assert "set rdm.model.dim: 16" in told
        assert "sample.rdm: 5000 sampling steps" in told
        data["rdm"]["wdith"] = data["rdm"].pop("seed")
        params.write_text(yaml.safe_dump(data))
        told = project.rcg("run", "rdm", code=2)
        assert "rdm.wdith: unknown key" in told
        assert "rdm.seed: missing" in told
        assert project.runs() == before
    finally:
        params.write_text(text)


def test_an_unconditional_generator_needs_no_rdm(project: Project, tmp_path: Path) -> None:
    """From stale dvc.yaml to pictures; what does not depend on the condition is found in the store."""
    clone = project.clone(tmp_path / "clone", project.store)
    params = clone.root / "params.yaml"
    data = yaml.safe_load(params.read_text())
    data["pixels"]["model"]["conditions"] = []
    data["rdm"] = data["sample"]["rdm"] = data["sample"]["representations"] = None
    data["sample"]["pixels"]["guidance"] = 0.0
    params.write_text(yaml.safe_dump(data))
    told = clone.rcg("repro", code=2)
    assert "dvc.yaml is stale" in told
    assert "- rdm\n" in told
    assert "rcg plan" in told
    assert "no stage rdm" in clone.rcg("run", "rdm", code=2)
    clone.rcg("plan", "--check", code=2)
    assert "sample: deps -artifacts/rdm/manifest.json" in clone.rcg("plan")
    told = "".join(clone.rcg("run", stage, RCG_SOURCE="demo") for stage in STAGES if stage != "rdm")
    assert told.count("already done") == 4  # collect … encode
    clone.run("dvc", "commit", "-q", "-f")
    assert "up to date" in clone.run("dvc", "repro")
    assert clone.rcg("status").count(" done ") == len(STAGES) - 1
    assert not (clone.root / "artifacts/bundle/rdm").exists()
    clone.rcg("sample", "--model", "artifacts/bundle", "-n", "4", "--out", "drawn")
    assert len(list((clone.root / "drawn").glob("*.png"))) == 5
    lineage = json.loads(clone.rcg("lineage", "artifacts/bundle", "--json"))
    assert set(lineage["stages"]) == set(STAGES) - {"rdm"}


@pytest.mark.parametrize(
    ("command", "env", "code", "words"),
    [
        (("run", "rmd"), {}, 2, "did you mean rdm?"),
        (("status",), {"RCG_WORKRES": "2"}, 2, "did you mean RCG_WORKERS?"),
        (("status",), {"RCG_WORKERS": "none"}, 2, "workers"),
        (("snapshot", "/nonexistent"), {}, 2, "neither a folder nor an archive"),
        (("preset", "use", "imagenet"), {}, 2, "no such preset"),
        (("sample", "--model", "models:/rcg@champion"), {}, 2, "RCG_MLFLOW_URI"),
        (("lineage", "nowhere"), {}, 3, "nowhere"),
        (("run", "collect"), {"RCG_STORE": "/proc/none"}, 3, "/proc/none"),
    ],
)
def test_wrong_input_is_an_error_for_a_person(
    project: Project, command: tuple[str, ...], env: dict[str, str], code: int, words: str
) -> None:
    assert words in project.rcg(*command, code=code, **env)
