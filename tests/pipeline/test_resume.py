"""kill -9 anywhere, then the same command: the artifact has the bits of an undisturbed run."""

import random
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.errors import ArtifactError
from components.process import machine
from flows.execution.work import work
from flows.runs.events import read_events
from flows.runs.records import CommittedRun, load_run
from flows.runs.transfer import adopt_checkpoints
from tests.support.drivers import (
    STEPS,
    Project,
    count_writes,
    kill_at_write,
    kill_in_step,
    memory_folder,
    until,
)

pytestmark = pytest.mark.long

N_STEP_KILLS = 10
_LIKE_OTHERS = ("/step-00000015/", "/step-00000020/")
"""Checkpoints that are written as those before and after them are."""


@dataclass(frozen=True)
class Undisturbed:
    """Projects that nobody killed, and the names of the writes that each stage made."""

    parts: Project
    fit: Project
    writes: dict[str, list[str]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as path:
        yield path


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[Undisturbed]:
    with memory_folder() as folder:
        parts = Project(folder / "parts")
        assert parts.start("parts", count_writes(folder / "parts.writes")).wait()["how"] == "made"
        fit = parts.copy_to(folder / "fit")
        assert fit.start("fit", count_writes(folder / "fit.writes")).wait()["how"] == "made"
        writes = {name: (folder / f"{name}.writes").read_text().splitlines() for name in ("parts", "fit")}
        yield Undisturbed(parts, fit, writes)


def committed(project: Project, name: str) -> CommittedRun:
    run = load_run(project.store, project.spec(name).prefix, verify=True)
    assert run is not None
    return run


def shown(project: Project, name: str) -> dict[str, bytes]:
    folder = project.root / "artifacts" / name
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def told_steps(project: Project, name: str) -> set[int]:
    """Steps that have an event."""
    return {event.step for event in read_events(project.store, project.spec(name).prefix)}


def assert_equal(project: Project, expected: Project, name: str) -> None:
    assert committed(project, name).digest == committed(expected, name).digest
    assert shown(project, name) == shown(expected, name)
    assert told_steps(project, name) >= told_steps(expected, name), "an event from before a checkpoint is lost"
    left = {path.name for path in (project.root / "artifacts").iterdir()}
    assert left == {path.name for path in (expected.root / "artifacts").iterdir()}
    assert project.store.head(f"{project.spec(name).prefix}/run.json") is not None


def test_the_writes_are_the_designed_ones(undisturbed: Undisturbed) -> None:
    writes = undisturbed.writes
    prefix = undisturbed.fit.spec("fit").prefix
    keys = [key.removeprefix(f"{prefix}/") for key in writes["fit"]]
    assert keys[:3] == ["lease.json", "attempts/1.json", "spec.json"]
    end = ["attempts/1.run.json", "manifest.json", "run.json", "lease.json"]
    assert [key for key in keys if key in end][-4:] == end
    assert keys.index("out/1/metrics.json") < keys.index("manifest.json")
    parts = [f"step-{n:08d}/{name}" for n in (5, 10, 15, 20, 24) for name in ("00000.safetensors", "rest.json")]
    assert {f"checkpoints/1/{part}" for part in parts} <= set(keys)
    assert len([key for key in writes["parts"] if key.startswith("memo/") and key.endswith("/entry.json")]) == 3


def test_killed_at_every_write_of_a_sharded_stage(undisturbed: Undisturbed, folder: Path) -> None:
    for number in range(1, len(undisturbed.writes["parts"]) + 1):
        project = Project(folder / str(number))
        assert project.start("parts", kill_at_write(number)).wait() == {"signal": signal.SIGKILL}, number
        assert "digest" in project.start("parts").wait()
        assert_equal(project, undisturbed.parts, "parts")
        made = (project.source / "made").read_text().split()
        assert len(made) <= 4, "a part that was committed was made again"
        assert set(made) == {"0", "1", "2"}


def test_killed_at_every_write_of_a_training_stage(undisturbed: Undisturbed, folder: Path) -> None:
    for number, key in enumerate(undisturbed.writes["fit"], 1):
        if any(part in key for part in _LIKE_OTHERS):
            continue
        project = undisturbed.parts.copy_to(folder / str(number))
        assert project.start("fit", kill_at_write(number)).wait() == {"signal": signal.SIGKILL}, number
        assert "digest" in project.start("fit").wait(), number
        assert_equal(project, undisturbed.fit, "fit")


def test_killed_at_seeded_steps_and_resumed(undisturbed: Undisturbed, folder: Path) -> None:
    for step in random.Random(0).sample(range(STEPS), N_STEP_KILLS):
        project = undisturbed.parts.copy_to(folder / str(step))
        assert project.start("fit", kill_in_step(step)).wait() == {"signal": signal.SIGKILL}
        told = project.start("fit").wait()
        assert (told["how"], told["attempt"]) == ("made", 2)
        assert_equal(project, undisturbed.fit, "fit")


def test_killed_again_and_again(undisturbed: Undisturbed, folder: Path) -> None:
    project = undisturbed.parts.copy_to(folder / "project")
    killed = []
    for step in (6, 7, 13, 20):
        driver = project.start("fit", kill_in_step(step))
        assert driver.wait() == {"signal": signal.SIGKILL}
        killed.append(driver.pid)
    assert project.start("fit").wait()["attempt"] == 5
    scratch = [path.name.split("-")[2] for path in Path(tempfile.gettempdir()).glob(f"rcg-{machine()}-*")]
    assert not {str(pid) for pid in killed} & set(scratch), "scratch folders of the dead stay"
    assert_equal(project, undisturbed.fit, "fit")
    steps = [event.step for event in read_events(project.store, project.spec("fit").prefix)]
    assert len(steps) > len(set(steps)), "resumed attempts went back to a checkpoint"
    assert {6, 12, 18, 24} == set(steps)


def test_a_resumed_run_goes_on_from_its_checkpoint(undisturbed: Undisturbed, folder: Path) -> None:
    project = undisturbed.parts.copy_to(folder / "project")
    project.start("fit", kill_in_step(23)).wait()
    project.start("fit").wait()
    second = [e.step for e in read_events(project.store, project.spec("fit").prefix, after=(2, 0))]
    assert min(second) > 10, "checkpoints of steps 5 to 20 are there; the last one or two may have been in flight"


def test_work_goes_on_across_a_code_change(undisturbed: Undisturbed, folder: Path) -> None:
    project = undisturbed.parts.copy_to(folder / "project")
    project.start("fit", kill_in_step(22)).wait()
    old = project.spec("fit")
    identity = old.identity.model_copy(update={"modules": {"refactored": "1"}})
    new = old.model_copy(update={"identity": identity, "fingerprint": identity.fingerprint})
    step = adopt_checkpoints(project.store, new, old.fingerprint[:12], "only renamed a variable")
    assert step in (15, 20)
    outcome = work(new, project.doing())
    assert outcome.run.digest == committed(undisturbed.fit, "fit").digest
    assert outcome.run.record.adopted_from == old.fingerprint
    assert outcome.run.record.adopted_because == "only renamed a variable"
    assert all(event.step > step for event in read_events(project.store, new.prefix))
    with pytest.raises(ArtifactError, match="checkpoints of its own"):
        adopt_checkpoints(project.store, new, old.fingerprint, "again")


def test_sigterm_saves_a_checkpoint_and_the_rerun_goes_on(undisturbed: Undisturbed, folder: Path) -> None:
    project = undisturbed.parts.copy_to(folder / "project")
    prefix = project.spec("fit").prefix
    (project.source / "hold").touch()
    driver = project.start("fit")
    until(lambda: list(project.store.list(f"{prefix}/events")))
    driver.send(signal.SIGTERM)
    (project.source / "hold").unlink()
    told = driver.wait()
    assert (told["error"], told["code"]) == ("RetryableError", 75)
    assert any("step-" in info.key for info in project.store.list(f"{prefix}/checkpoints"))
    assert project.start("fit").wait()["how"] == "made"
    assert_equal(project, undisturbed.fit, "fit")


def test_running_again_does_nothing(undisturbed: Undisturbed, folder: Path) -> None:
    artifacts = undisturbed.fit.root / "artifacts"
    (log := folder / "writes").touch()
    before = {path: path.stat().st_mtime_ns for path in artifacts.rglob("*")}
    for name in ("parts", "fit"):
        assert undisturbed.fit.start(name, count_writes(log)).wait()["how"] == "reused"
    assert log.read_text() == ""
    assert {path: path.stat().st_mtime_ns for path in artifacts.rglob("*")} == before


def test_a_fresh_workspace_finds_everything_done(undisturbed: Undisturbed, folder: Path) -> None:
    fresh = Project(folder)
    (folder / "store").symlink_to(undisturbed.fit.store.root)
    for name in ("parts", "fit"):
        assert fresh.start(name).wait()["how"] == "reused"
        assert shown(fresh, name) == shown(undisturbed.fit, name)
