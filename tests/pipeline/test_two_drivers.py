"""Several drivers on one run: one works, the others follow, and whoever lost the lease commits nothing."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import MissingError, StoreError, TamperedError
from components.store import Prefix
from flows.runs.lease import attempts, read_lease
from flows.runs.lookup import run_status
from flows.runs.records import load_run
from tests.support.drivers import STEPS, Driver, Project, memory_folder, release_waits_for, until


@pytest.fixture
def project() -> Iterator[Project]:
    """Its parts are made; `fit` waits for `hold` to go."""
    with memory_folder() as folder:
        project = Project(folder)
        project.drive("parts")
        (project.source / "hold").touch()
        yield project


def fit_prefix(project: Project) -> str:
    return project.spec("fit").prefix


def let_go(project: Project) -> None:
    (project.source / "hold").unlink()


def holder(project: Project) -> int | None:
    """The pid that holds the lease of fit."""
    found = read_lease(Prefix(project.store, fit_prefix(project)))
    return None if found is None or found[0].released else found[0].holder.pid


def in_training(project: Project, attempt: int) -> bool:
    """Attempt reported and its first checkpoint is stored, so it waits at its first preview or will in a moment."""
    reported = list(project.store.list(f"{fit_prefix(project)}/events/{attempt}"))
    return bool(reported) and project.store.head(f"{fit_prefix(project)}/checkpoints/latest.json") is not None


def stop(driver: Driver) -> None:
    driver.send(signal.SIGSTOP)
    until(lambda: driver.state() == "T")


def files_of(project: Project) -> dict[str, bytes]:
    return {info.key: project.store.get(info.key) for info in project.store.list(fit_prefix(project))}


def test_one_works_and_the_other_follows(project: Project) -> None:
    first = project.start("fit")
    until(lambda: holder(project) == first.pid and in_training(project, 1))
    second = project.start("fit")
    until(second.is_following)
    let_go(project)
    made, followed = first.wait(), second.wait()
    assert (made["how"], followed["how"]) == ("made", "followed")
    assert made["digest"] == followed["digest"]
    assert followed["followed"] == [1]
    assert followed["steps"][-1] == STEPS, "the follower saw the other's progress"
    assert attempts(Prefix(project.store, fit_prefix(project))) == [1]


def test_started_at_the_same_instant(project: Project) -> None:
    let_go(project)
    for _ in range(3):
        fresh = project.copy_to(project.root / f"copy-{time.monotonic_ns()}")
        told = [driver.wait() for driver in [fresh.start("fit") for _ in range(4)]]
        assert len({t["digest"] for t in told}) == 1
        assert sum(t["how"] == "made" for t in told) == 1
        assert attempts(Prefix(fresh.store, fresh.spec("fit").prefix)) == [1]


def test_the_follower_of_a_killed_holder_takes_over_at_once(project: Project) -> None:
    slow = Project(project.root, heartbeat_s=3600)
    first = slow.start("fit")
    until(lambda: in_training(slow, 1))
    second = slow.start("fit")
    until(second.is_following)
    first.send(signal.SIGKILL)  # a zombie until it is waited for: dead all the same
    until(lambda: holder(slow) == second.pid)
    assert first.wait() == {"signal": signal.SIGKILL}
    let_go(slow)
    assert second.wait()["attempt"] == 2


def test_a_stopped_holder_that_wakes_after_the_takeover_cannot_commit(project: Project) -> None:
    project = Project(project.root, heartbeat_s=0.2)
    first = project.start("fit")
    until(lambda: in_training(project, 1))
    stop(first)
    second = project.start("fit")
    until(lambda: holder(project) == second.pid)  # at the checkpoint it waits before it reports anything
    stop(second)
    let_go(project)
    before = files_of(project)
    first.send(signal.SIGCONT)
    told = first.wait()
    assert (told["error"], told["code"]) == ("SupersededError", 75)
    assert files_of(project) == before, "a superseded writer wrote"
    second.send(signal.SIGCONT)
    assert second.wait()["attempt"] == 2
    assert load_run(project.store, fit_prefix(project), verify=True) is not None


def test_a_stopped_holder_that_wakes_after_the_commit_changes_nothing(project: Project) -> None:
    project = Project(project.root, heartbeat_s=0.2)
    first = project.start("fit")
    until(lambda: in_training(project, 1))
    stop(first)
    second = project.start("fit")
    until(lambda: holder(project) == second.pid)
    let_go(project)
    digest = second.wait()["digest"]
    before = files_of(project)
    first.send(signal.SIGCONT)
    assert first.wait()["error"] == "SupersededError"
    assert files_of(project) == before
    again = project.start("fit").wait()
    assert (again["how"], again["digest"]) == ("reused", digest)


def test_a_lasting_failure_ends_the_followers_and_a_rerun_is_allowed(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (project.source / "fail").touch()
    (project.source / "hold").touch()
    first = project.start("parts")
    until(lambda: attempts(parts_folder(project)))
    second = project.start("parts")
    until(second.is_following)
    let_go(project)
    told = first.wait()
    assert (told["error"], told["code"]) == ("DataError", 3)
    told = second.wait()
    assert (told["error"], told["code"]) == ("ArtifactError", 3)
    assert "the process that was followed failed: an image is broken" in told["message"]
    assert failed_attempt(project) == 1
    (project.source / "fail").unlink()
    assert project.start("parts").wait()["attempt"] == 2


def test_a_rerun_takes_no_failure_from_before_it_started(tmp_path: Path) -> None:
    """The failed attempt is on record and its lease is not released yet: its process is slow, or died elsewhere."""
    project = Project(tmp_path, heartbeat_s=3600)
    (project.source / "fail").touch()
    first = project.start("parts", release_waits_for(released := tmp_path / "released"))
    until(lambda: parts_folder(project).head("attempts/1.failure.json"))
    assert failed_attempt(project) == 1
    (project.source / "fail").unlink()
    told = project.start("parts").wait()
    assert (told.get("how"), told.get("attempt"), told.get("followed")) == ("made", 2, []), told
    released.touch()
    assert first.wait()["error"] == "DataError"
    assert load_run(project.store, project.spec("parts").prefix, verify=True) is not None


def parts_folder(project: Project) -> Prefix:
    return Prefix(project.store, project.spec("parts").prefix)


def failed_attempt(project: Project) -> int:
    """Number of the attempt at `parts` that failed as a whole because of its source."""
    status = run_status(project.store, "parts", project.spec("parts").fingerprint)
    assert status.state == "failed"
    assert status.failure is not None
    assert status.failure.failure_class == "data"
    assert "cat.png" in status.failure.message
    return status.attempt


def test_status_tells_the_states_of_a_run(project: Project) -> None:
    fingerprint = project.spec("fit").fingerprint
    assert run_status(project.store, "fit", fingerprint).state == "absent"
    driver = project.start("fit")
    until(lambda: in_training(project, 1))
    status = run_status(project.store, "fit", fingerprint)
    assert (status.state, status.attempt) == ("running", 1)
    assert status.last_event is not None
    assert status.last_event.total_steps == STEPS
    driver.send(signal.SIGKILL)
    driver.wait()
    assert run_status(project.store, "fit", fingerprint).state == "interrupted"
    let_go(project)
    project.start("fit").wait()
    assert run_status(project.store, "fit", fingerprint, verify=True).state == "complete"


def test_stages_in_the_wrong_order(tmp_path: Path) -> None:
    told = Project(tmp_path).start("fit").wait()
    assert told["code"] == 3
    assert "run parts first: rcg run parts" in told["message"]


def test_a_flipped_byte_is_caught(project: Project) -> None:
    let_go(project)
    store = project.store
    run = load_run(store, project.spec("parts").prefix)
    assert run is not None
    path = store.local_path(run.keys["parts/1.bin"])
    data = bytearray(path.read_bytes())
    data[17] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(TamperedError, match=r"parts/1\.bin"):
        load_run(store, run.prefix, verify=True)
    told = project.start("fit").wait()
    assert told["error"] == "TamperedError"
    assert "parts/1.bin" in told["message"]
    assert load_run(store, fit_prefix(project)) is None
    path.write_bytes(bytes(data[:-1]))
    with pytest.raises(TamperedError, match=r"parts/1\.bin"):
        load_run(store, run.prefix)
    path.unlink()
    with pytest.raises(MissingError, match=r"parts/1\.bin"):
        load_run(store, run.prefix)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_at_any_point_commits_nothing_half(project: Project, small_disk: Path) -> None:
    let_go(project)
    cramped = Project(project.copy_to(small_disk / "project").root, heartbeat_s=0.05)
    spec = cramped.spec("fit")
    n_failed = 0
    for pages in range(0, 64, 4):  # free space, a little more each time
        _fill(small_disk / "ballast", leave=pages * 4096)
        failure = _failure(cramped)
        if failure is None:
            break
        n_failed += 1
        assert "free disk space" in failure
        assert load_run(cramped.store, spec.prefix) is None
        assert cramped.store.head(f"{spec.prefix}/manifest.json") is None
    assert 3 <= n_failed < 16
    assert cramped.drive("fit").run.digest == project.drive("fit").run.digest


def _fill(ballast: Path, *, leave: int) -> None:
    ballast.unlink(missing_ok=True)
    descriptor = os.open(ballast, os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while True:
            os.write(descriptor, b"\0" * 4096)
    os.ftruncate(descriptor, os.fstat(descriptor).st_size - leave)
    os.close(descriptor)


def _failure(project: Project) -> str | None:
    try:
        project.drive("fit")
    except StoreError as error:
        return str(error)
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_store_that_cannot_be_written(project: Project, small_disk: Path) -> None:
    let_go(project)
    sealed = project.copy_to(small_disk / "project")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="read-only") as caught:
        sealed.drive("fit")
    assert "RCG_STORE" in str(caught.value)
