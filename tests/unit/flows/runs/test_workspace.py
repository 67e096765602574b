import os
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import ArtifactError, MissingError, TamperedError
from components.store import LocalStore
from flows.identity.artifact import canonical_json
from flows.pipeline.table import Need, Stage
from flows.runs.records import CommittedRun
from flows.runs.workspace import Workspace
from tests.support.made_runs import a_spec, make_run

RDM = Stage("rdm", (), ("metrics.json", "plots/*"))
SPEC = a_spec("rdm")
FILES = {"weights.bin": b"weights", "plots/loss.json": b"[]", "metrics.json": b"{}"}
NEED = Need("rdm")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def run(store: LocalStore) -> CommittedRun:
    return make_run(store, SPEC, FILES)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "project")


def names(workspace: Workspace) -> list[str]:
    return sorted(p.relative_to(workspace.artifacts).as_posix() for p in workspace.artifacts.rglob("*") if p.is_file())


SHOWN = ["rdm/manifest.json", "rdm/metrics.json", "rdm/plots/loss.json", "rdm/run.json"]


def test_small_files_are_shown_and_lead_back_to_the_run(
    store: LocalStore, run: CommittedRun, workspace: Workspace
) -> None:
    workspace.publish(store, run, RDM)
    assert names(workspace) == SHOWN
    assert workspace.parent(store, NEED) == run
    assert Workspace(workspace.artifacts.parent).pointer("rdm") == workspace.pointer("rdm")
    assert (workspace.artifacts / "rdm/plots/loss.json").read_bytes() == b"[]"


def test_a_bundle_shows_everything(store: LocalStore, run: CommittedRun, workspace: Workspace) -> None:
    workspace.publish(store, run, Stage("rdm", (), ("*",)))
    assert names(workspace) == sorted([*SHOWN, "rdm/weights.bin"])


def test_publishing_again_touches_nothing(store: LocalStore, run: CommittedRun, workspace: Workspace) -> None:
    workspace.publish(store, run, RDM)
    before = {path: path.stat() for path in workspace.artifacts.rglob("*")}
    workspace.publish(store, run, RDM)
    assert {path: path.stat() for path in workspace.artifacts.rglob("*")} == before


def test_files_that_dvc_linked_are_replaced_and_never_written(
    store: LocalStore, run: CommittedRun, workspace: Workspace, tmp_path: Path
) -> None:
    workspace.publish(store, run, RDM)
    linked = tmp_path / "cached"
    os.link(workspace.artifacts / "rdm/metrics.json", linked)
    os.link(workspace.artifacts / "rdm/manifest.json", tmp_path / "cached manifest")
    manifest = linked.with_name("cached manifest").read_bytes()
    (workspace.artifacts / "rdm" / "stale.txt").write_text("of an earlier run")
    other = make_run(store, a_spec("rdm", params={"numerics": 2}), {**FILES, "metrics.json": b'{"a": 1}'})
    workspace.publish(store, other, RDM)
    assert linked.read_bytes() == b"{}"
    assert linked.with_name("cached manifest").read_bytes() == manifest
    assert names(workspace) == SHOWN
    assert (workspace.artifacts / "rdm/metrics.json").read_bytes() == b'{"a": 1}'
    assert workspace.parent(store, NEED).digest == other.digest


@pytest.mark.parametrize("damage", ["changed", "removed", "added", "link"])
def test_damage_is_mended(
    store: LocalStore, run: CommittedRun, workspace: Workspace, tmp_path: Path, damage: str
) -> None:
    folder = workspace.publish(store, run, RDM)
    if damage == "changed":
        (folder / "metrics.json").write_bytes(b"[]")
    elif damage == "removed":
        (folder / "plots/loss.json").unlink()
    elif damage == "added":
        (folder / "more").write_bytes(b"")
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    workspace.publish(store, run, RDM)
    assert names(workspace) == SHOWN
    assert not folder.is_symlink()
    assert (folder / "metrics.json").read_bytes() == b"{}"
    assert [path.name for path in workspace.artifacts.iterdir()] == ["rdm"]


def test_leftovers_of_killed_publishers_go(store: LocalStore, run: CommittedRun, workspace: Workspace) -> None:
    for pid in (2**22 + 1, os.getpid()):  # above the largest pid; alive
        (workspace.artifacts / f".rdm.{pid}.x").mkdir(parents=True)
    workspace.publish(store, run, RDM)
    assert sorted(path.name for path in workspace.artifacts.iterdir()) == [f".rdm.{os.getpid()}.x", "rdm"]


def test_altered_bytes_are_not_published(store: LocalStore, run: CommittedRun, workspace: Workspace) -> None:
    path = store.local_path(run.keys["metrics.json"])
    path.chmod(0o644)
    path.write_bytes(b"[]")
    with pytest.raises(TamperedError, match=r"metrics\.json"):
        workspace.publish(store, run, RDM)
    assert list(workspace.artifacts.iterdir()) == []


def test_the_wrong_order(store: LocalStore, workspace: Workspace) -> None:
    with pytest.raises(MissingError, match="wrong order") as caught:
        workspace.parent(store, NEED)
    assert caught.value.exit_code == 3
    assert "rcg run rdm" in str(caught.value)


def test_another_store(store: LocalStore, run: CommittedRun, workspace: Workspace, tmp_path: Path) -> None:
    workspace.publish(store, run, RDM)
    with pytest.raises(MissingError, match="not in the store") as caught:
        workspace.parent(LocalStore(tmp_path / "empty"), NEED)
    assert "rcg data copy --from" in str(caught.value)


def test_equal_content_of_another_run_serves_as_well(
    store: LocalStore, run: CommittedRun, workspace: Workspace, tmp_path: Path
) -> None:
    workspace.publish(store, run, RDM)
    other = LocalStore(tmp_path / "other")
    twin = make_run(other, a_spec("rdm", modules={"components.rdm": "x"}), FILES)
    assert workspace.parent(other, NEED) == twin


def test_a_manifest_that_dvc_checked_out_counts_although_the_pointer_is_older(
    store: LocalStore, run: CommittedRun, workspace: Workspace
) -> None:
    workspace.publish(store, run, RDM)
    manifest = (workspace.artifacts / "rdm/manifest.json").read_bytes()
    workspace.publish(store, make_run(store, a_spec("rdm", params={"numerics": 2}), {"a": b"b"}), RDM)
    (workspace.artifacts / "rdm/manifest.json").write_bytes(manifest)
    assert workspace.parent(store, NEED) == run


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        (lambda data: data.replace(b'"size":7', b'"size":8'), TamperedError, "no manifest that this store committed"),
        (lambda data: data + b"\n", TamperedError, "edited by hand"),
        (lambda data: data[:-3], ArtifactError, "is not valid JSON"),
        (lambda data: data.replace(b'"rdm"', b'"pixels"'), ArtifactError, "another stage"),
        (lambda data: data.replace(b'version":1', b'version":9'), ArtifactError, "newer version"),
        (lambda _: canonical_json({}), ArtifactError, "no schema_version"),
    ],
)
def test_a_manifest_edited_by_hand_is_refused_by_name(
    store: LocalStore,
    run: CommittedRun,
    workspace: Workspace,
    edit: Callable[[bytes], bytes],
    error: type[Exception],
    words: str,
) -> None:
    path = workspace.publish(store, run, RDM) / "manifest.json"
    changed = edit(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(error, match=words) as caught:
        workspace.parent(store, NEED)
    assert str(path) in str(caught.value)
