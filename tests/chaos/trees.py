"""`rcg repro` with DVC and the stage's command, killed together at a file operation of DVC; then run again."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.support.chaos import NAMED, SETTINGS, Finding, make_project
from tests.support.projects import BIN, copy_code

TREES = "tree"
ROOT = Path(__file__).parents[2]
_HOOK = """
import os, signal, sys
if "CHAOS_ROOT" in os.environ and "flows.execution.quiet_dvc" in sys.orig_argv[:5]:
    sys.path.append(os.environ["CHAOS_HARNESS"])
    import atexit
    from pathlib import Path
    from tests.support.faults import Count
    at = int(os.environ["CHAOS_AT"])
    count = Count(Path(os.environ["CHAOS_ROOT"]), "kill", at or None, lambda: os.killpg(0, signal.SIGKILL)).install()
    atexit.register(lambda: at or Path(os.environ["CHAOS_COUNT"]).write_text(str(count.n)))
"""


def kill_trees(rig: "Checkout", most: int) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """(name, trial), the kills evenly spaced over DVC's operations in one stage."""
    n = rig.count()
    for k in sorted({round(1 + i * (n - 1) / max(1, most - 1)) for i in range(most)}):
        yield f"{TREES} {k}", partial(rig.trial, k)


class Checkout:
    """A checkout whose pipeline is finished; trials work on copies of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, folder / "made"

    def prepare(self) -> "Checkout":
        make_project(self.made)
        copy_code(self.made)
        (self.folder / "hook").mkdir()
        (self.folder / "hook/sitecustomize.py").write_text(_HOOK)
        for command in (
            ("git", "init", "-q"),
            ("rcg", "snapshot", str(self.folder / "pictures")),
            ("rcg", "plan"),
            ("rcg", "repro"),
            ("git", "add", "-A"),
            ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "made"),
        ):
            code, text = self.run(self.made, *command)
            if code != 0:
                raise RuntimeError(text)
        self.whole = (self.made / "dvc.lock").read_bytes()
        return self

    def count(self) -> int:
        """Number of DVC's operations when it has forgotten one stage."""
        self.run(self._copy(), "rcg", "repro", "codec", at=0)
        return int((self.folder / "count").read_text())

    def _copy(self) -> Path:
        """A fresh copy, in which DVC has to do the stage `codec` again."""
        root = self.folder / "trial"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.made, root, symlinks=True)
        text = self.whole.decode()
        start = text.index("  codec:\n")
        end = next(i for i in range(start + 1, len(text)) if text[i - 1] == "\n" and text[i : i + 3] != "   ")
        (root / "dvc.lock").write_text(text[:start] + text[end:])
        return root

    def env(self, root: Path) -> dict[str, str]:
        """Of commands in a copy."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("RCG_")}
        env |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"} | SETTINGS
        return env | {"PYTHONPATH": f"{self.folder / 'hook'}{os.pathsep}{root}"}

    def run(self, root: Path, *command: str, at: int | None = None) -> tuple[int, str]:
        """(exit code, what was said). `at`: DVC's operation at which everything is killed, 0: counted only."""
        env = self.env(root)
        if at is not None:
            env |= {"CHAOS_ROOT": str(root), "CHAOS_AT": str(at), "CHAOS_HARNESS": str(ROOT)}
            env |= {"CHAOS_COUNT": str(self.folder / "count")}
        done = subprocess.run(
            command,
            cwd=root,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=3600,
            start_new_session=True,
            errors="replace",
        )
        return done.returncode, done.stdout + done.stderr

    def trial(self, at: int) -> Finding:
        name, root = f"{TREES} {at}", self._copy()
        self.run(root, "rcg", "repro", "codec", at=at)
        code, text = self.run(root, "rcg", "repro", "codec")
        if "Traceback" in text:
            return Finding(name, "traceback", text)
        if code != 0:
            return Finding(name, "needs a hand" if code in NAMED else f"exit code {code}", text)
        if sorted((root / "dvc.lock").read_bytes().splitlines()) != sorted(self.whole.splitlines()):
            return Finding(name, "other content: dvc.lock", text)
        return Finding(name, "same", text)
