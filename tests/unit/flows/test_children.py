"""Other programs run nothing of the folder in which they work."""

import os
import subprocess
from pathlib import Path

import pytest

from flows.children import bare_environment, git, python


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
    given = bare_environment(tmp_path)
    assert "secret" not in given.values()
    assert given["PATH"] == os.environ["PATH"]
    assert given["HOME"] == str(tmp_path)
