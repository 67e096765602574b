"""Other programs run nothing of the folder in which they work."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.children import git, python, run_apart


def test_python_imports_nothing_from_the_current_folder(tmp_path: Path) -> None:
    for name in ("json", "flows", "components"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('code of the current folder ran')")
    done = subprocess.run(python("json.tool", "--help"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_git_runs_nothing_that_the_repository_configures(tmp_path: Path) -> None:
    marker, evil = tmp_path / "ran", tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {marker}\n")
    evil.chmod(0o755)
    root = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / "file").write_text("1")
    for hook in ("pre-commit", "post-checkout", "post-commit", "reference-transaction"):
        (root / ".git/hooks").mkdir(exist_ok=True)
        (root / ".git/hooks" / hook).symlink_to(evil)
    subprocess.run(["git", "config", "core.fsmonitor", str(evil)], cwd=root, check=True)
    me = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("add", "."), (*me, "commit", "-qm", "one"), ("status",), ("worktree", "add", "-q", "../other")):
        done = git(root, *command)
        assert done.returncode == 0, done.stderr
    assert not marker.exists()
    subprocess.run(["git", "status"], cwd=root, check=False, capture_output=True)
    assert marker.exists(), "what plain git does"


def test_git_asks_no_address_that_is_a_command(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    done = git(tmp_path, "fetch", f"ext::sh -c 'touch {tmp_path}/ran'")
    assert done.returncode != 0
    assert not (tmp_path / "ran").exists()


def test_code_of_others_is_given_nothing_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "RCG_MLFLOW_URI", "GIT_SSH_COMMAND", "ODD"):
        monkeypatch.setenv(name, "secret")
    shown = run_apart([sys.executable, "-c", "import os; print(os.getcwd(), os.environ['HOME'], os.environ)"], tmp_path)
    assert shown.stdout.split()[:2] == [str(tmp_path)] * 2
    assert "secret" not in shown.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, and needs to be one who may")
def test_nor_does_it_find_it_in_the_memory_of_this_process() -> None:
    """Root reads everything, so a child of ours becomes nobody first."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65534)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after exec
            look = ["cat", f"/proc/{os.getpid()}/environ"]
            open_before = subprocess.run(look, capture_output=True, check=False).returncode == 0
            os._exit(0 if open_before and run_apart(look, Path("/tmp")).returncode != 0 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
