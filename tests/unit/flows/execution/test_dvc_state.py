"""What a killed DVC leaves: told from what a living one writes, and mended without loss."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.execution.dvc_state import DAMAGED, KEPT, faults, mend

LOCK = b"""schema: '2.0'
stages:
  collect:
    cmd: rcg run collect
    deps:
    - path: collection.lock
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 3
    outs:
    - path: artifacts/collect
      hash: md5
      md5: 0123456789abcdef0123456789abcdef.dir
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / "dvc.lock").write_bytes(LOCK)
    return tmp_path


def rwlock(folder: Path, *pids: int) -> Path:
    path = folder / ".dvc/tmp/rwlock"
    read = {f"/a/{pid}": [{"pid": pid, "cmd": "dvc repro"}] for pid in pids}
    path.write_text(json.dumps({"write": {"/b": {"pid": pids[0], "cmd": "dvc repro"}}, "read": read}))
    return path


def test_nothing_to_mend_keeps_a_copy(folder: Path) -> None:
    assert mend(folder) == []
    assert (folder / KEPT).read_bytes() == LOCK


def test_entries_of_dead_and_reused_pids_are_dropped_and_those_of_a_living_dvc_stay(folder: Path) -> None:
    command = [sys.executable, "-c", "print(flush=True); input()", "dvc", "repro"]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as dvc:
        assert dvc.stdout
        dvc.stdout.readline()  # from here on the system knows its command
        path = rwlock(folder, os.getpid(), 2**22 + 1, dvc.pid)
        assert [fault.path for fault in faults(folder)] == [path]
        assert len(mend(folder)) == 1
        assert json.loads(path.read_text()) == {
            "write": {},
            "read": {f"/a/{dvc.pid}": [{"pid": dvc.pid, "cmd": "dvc repro"}]},
        }
        assert faults(folder) == []
        dvc.communicate(b"\n")
    assert len(faults(folder)) == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"read": {"/a": [{"cmd": "x"}]}}', b'{"write": 3}', b"\xff"])
def test_a_torn_rwlock_is_removed(folder: Path, data: bytes) -> None:
    path = folder / ".dvc/tmp/rwlock"
    path.write_bytes(data)
    assert len(mend(folder)) == 1
    assert not path.exists()


@pytest.mark.parametrize("size", [0, 1, 30, 60, 100, 130])
def test_a_torn_lock_file_is_made_anew_and_kept_aside(folder: Path, size: int) -> None:
    mend(folder)
    (folder / "dvc.lock").write_bytes(LOCK[:size])
    assert "the last whole one" in "".join(mend(folder))
    assert (folder / "dvc.lock").read_bytes() == LOCK
    assert (folder / DAMAGED).read_bytes() == LOCK[:size]


def test_without_a_copy_git_has_it_and_without_git_there_is_none(folder: Path) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "-q"), ("add", "dvc.lock"), (*identity, "commit", "-qm", "x")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    (folder / "dvc.lock").write_bytes(b"")
    assert "from git" in "".join(mend(folder))
    assert (folder / "dvc.lock").read_bytes() == LOCK
    (folder / KEPT).unlink()
    subprocess.run(["git", "update-ref", "-d", "HEAD"], cwd=folder, check=True)
    (folder / "dvc.lock").write_bytes(b"")
    assert "from nothing" in "".join(mend(folder))
    assert not (folder / "dvc.lock").exists()


def test_a_merge_that_stopped_at_the_lock_file_is_named_and_made_anew(folder: Path) -> None:
    mend(folder)
    merge = b"<<<<<<< HEAD\n" + LOCK + b"=======\n>>>>>>> other\n"
    (folder / "dvc.lock").write_bytes(merge)
    assert "holds the conflict of a git merge" in "".join(mend(folder))
    assert (folder / "dvc.lock").read_bytes() == LOCK
    assert (folder / DAMAGED).read_bytes() == merge


def test_line_ends_of_windows_are_no_fault(folder: Path) -> None:
    (folder / "dvc.lock").write_bytes(LOCK.replace(b"\n", b"\r\n"))
    assert faults(folder) == []


def test_a_dvc_at_work_is_left_alone(folder: Path) -> None:
    (folder / "dvc.lock").write_bytes(b"")
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print('held', flush=True); input()"
    command = [sys.executable, "-c", hold, str(folder / ".dvc/tmp/lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as dvc:
        assert dvc.stdout is not None
        dvc.stdout.readline()
        assert mend(folder, patience_s=0.0) == []
        assert (folder / "dvc.lock").read_bytes() == b""
        dvc.communicate(b"\n")
    assert len(mend(folder)) == 1
