"""Checkouts for tests that go the README's way: a copy of the code, git, and the real commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import rcg_told

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_PARTS = (
    "flows",
    "components",
    "presets",
    "k8s/base",
    "dvc.yaml",
    ".dvcignore",
    ".dvc/config",
    ".dvc/.gitignore",
    ".gitignore",
)


def copy_code(root: Path) -> None:
    """What a pipeline needs of this checkout."""
    for part in _PARTS:
        source, target = ROOT / part, root / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*"))  # bytecode that is being written
        else:
            shutil.copy2(source, target)


class Project:
    """A checkout in a folder of its own, with its own copy of the code."""

    timeout_s = 300

    def __init__(self, root: Path, store: Path) -> None:
        self.root, self.store = root, store

    @property
    def settings(self) -> dict[str, str]:
        return {"RCG_STORE": str(self.store), "RCG_MLFLOW_URI": "off", "OMP_NUM_THREADS": "1"}

    def copy_code(self) -> None:
        """What a pipeline needs, in a new git repository."""
        copy_code(self.root)
        self.run("git", "init", "-q")

    def run(self, *command: str, code: int = 0, **env: str) -> str:
        """Output of an `rcg`, `dvc` or `git` command, whose exit code is checked."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RCG_")}
        environment |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(self.root)}
        environment |= self.settings | env
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=self.timeout_s, check=False
        )
        text = done.stdout + done.stderr
        assert done.returncode == code, text
        assert "Traceback" not in text, text
        return text

    def rcg(self, *command: str, code: int = 0, **env: str) -> str:
        """The same of an `rcg` command, in this process and with its code: a new one spends seconds on imports."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            for name in [name for name in os.environ if name.startswith("RCG_")]:
                patch.delenv(name)
            for name, value in (self.settings | env).items():
                patch.setenv(name, value)
            found, told = rcg_told(*command)
        assert found == code, told
        assert "Traceback" not in told, told
        return told

    def clone(self, root: Path, store: Path) -> "Project":
        subprocess.run(["git", "clone", "-q", str(self.root), str(root)], check=True)
        return Project(root, store)

    def runs(self) -> set[str]:
        return {p.parent.name for p in self.store.glob("runs/*/*/manifest.json")}

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text
        (self.root / path).write_text(text.replace(old, new, 1))

    def commit(self) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        self.run("git", "add", "-A")
        self.run("git", *identity, "commit", "-qm", "state")
