"""`rcg repro` of the whole pipeline, its processes killed together again and again at random moments, to its end.

A moment is processor time that the tree has used, so that a busy machine moves none. A life is one run from nothing to
the bundle; every kill of it is a trial. What DVC can be left with is put there between some of them.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.trees import Checkout
from tests.support.chaos import NAMED, Finding
from tests.support.remade import artifact_content, lock_content

MOMENTS = "moment"
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_LATEST_S = 9.0
"""Processor time, at most, until a kill: a start takes half of it, the longest stage the other."""
_END_S = 120
"""After a signal everything ends within so many seconds."""
_TICKS = os.sysconf("SC_CLK_TCK")
_LEFT = {
    "nothing": (),
    "torn rwlock": ((".dvc/tmp/rwlock", b'{"write": {"a'),),
    "rwlock of a reused pid": ((".dvc/tmp/rwlock", b'{"write": {"%s": {"pid": 1, "cmd": "dvc repro"}}, "read": {}}'),),
    "empty dvc.lock": (("dvc.lock", b""),),
}


def kill_moments(rig: Checkout, done: set[str], most: int) -> Iterator[list[Finding]]:
    """Lives that are not done yet, until there are `most` kills; the kills of each."""
    life = 0
    while sum(name.startswith(f"{MOMENTS} ") for name in done) < most:
        if not any(name.startswith(f"{MOMENTS} {life} ") for name in done):
            found = _Life(rig, life).run()
            done |= {finding.name for finding in found}
            yield found
        life += 1


class _Life:
    """One checkout, in which nothing was ever run."""

    def __init__(self, rig: Checkout, number: int) -> None:
        self.rig, self.number, self.rng = rig, number, random.Random(number)
        self.command = ("rcg", "repro", *(("--parallel",) if number % 3 == 2 else ()))
        self.root = rig.folder / "life"
        self.tmp = rig.folder / "life-tmp"

    def run(self) -> list[Finding]:
        for path in (self.root, self.tmp):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.rig.made, self.root, symlinks=True)
        self.tmp.mkdir()
        for name in ("store", "artifacts", "dvc.lock", ".dvc/tmp"):
            path = self.root / name
            path.unlink() if path.is_file() else shutil.rmtree(path)
        subprocess.run(["git", "update-ref", "-d", "HEAD"], cwd=self.root, check=True)  # or it would have dvc.lock
        found: list[Finding] = []
        while True:
            how = self.rng.choice(_SIGNALS)
            name = f"{MOMENTS} {self.number} {len(found)} {how.name}"
            code, text = self._until(how, self.rng.uniform(0.2, _LATEST_S))
            if problem := _problem(code, text):
                return [*found, Finding(name, problem, text)]
            if code is not None:
                return [*found[:-1], Finding(found[-1].name, self._compared(), text)] if found else []
            left = self.rng.choice(list(_LEFT)) if self.rng.random() < 0.3 else "nothing"
            for place, data in _LEFT[left]:
                self._leave(self.root / place, data)
            found.append(Finding(f"{name}, {left}", "same", text))

    def _leave(self, path: Path, data: bytes) -> None:
        if path.parent.is_dir():
            path.write_bytes(data.replace(b"%s", bytes(self.root / "artifacts/rdm")))

    def _until(self, how: signal.Signals, moment_s: float) -> tuple[int | None, str]:
        """(exit code, or None of a tree that was killed after it had used `moment_s` of processor; what was said)."""
        log = self.rig.folder / "life.log"
        env = self.rig.env(self.root) | {"TMPDIR": str(self.tmp)}
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.command, cwd=self.root, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        killed = False
        while process.poll() is None and not killed:
            time.sleep(0.02)
            if killed := _tree(process.pid)[1] >= moment_s:
                os.killpg(process.pid, how)
        until = time.monotonic() + _END_S
        while killed and any(_tree(process.pid)[0]):
            process.poll()
            time.sleep(0.02)
            if time.monotonic() > until:
                os.killpg(process.pid, signal.SIGKILL)
                return 1, f"still at work after {how.name}\n{log.read_text(errors='replace')}"
        code = process.wait()
        return (None if killed and code else code), log.read_text(errors="replace")

    def _compared(self) -> str:
        """What is other than after a run that nobody disturbed, or `same`."""
        if lock_content(self.root / "dvc.lock") != lock_content(self.rig.made / "dvc.lock"):
            return "other content: dvc.lock"
        if artifact_content(self.root) != artifact_content(self.rig.made):
            return "other content: artifacts"
        if left := _listing(self.root) ^ _listing(self.rig.made):
            return f"left or gone: {', '.join(sorted(left))}"
        rwlock = self.root / ".dvc/tmp/rwlock"
        left = {path.name for folder in (self.tmp, self.root / "store/.rcg-store/tmp") for path in folder.iterdir()}
        left -= {name for name in left if name.startswith("torchinductor_")}  # torch keeps it for later processes
        if left or (rwlock.is_file() and any(json.loads(rwlock.read_bytes() or b"{}").values())):
            return f"left: {', '.join(sorted(left)) or 'an entry in rwlock'}"
        return "same"


def _problem(code: int | None, text: str) -> str | None:
    if "Traceback" in text and "init_import_site" not in text:  # Python itself was just starting
        return "traceback"
    if not code:
        return None
    return "needs a hand" if code in NAMED else f"exit code {code}"


def _tree(session: int) -> tuple[list[int], float]:
    """(pids, processor seconds with those of ended children) of what lives in a session."""
    pids, ticks = [], 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            pids.append(int(path.parent.name))
            ticks += sum(map(int, fields[11:15]))
    return pids, ticks / _TICKS


def _listing(root: Path) -> set[str]:
    """Names that a person sees, and what the store has committed."""
    top = {path.name for path in root.iterdir()}
    return top | {path.relative_to(root).as_posix() for path in (root / "store").glob("*/*/*/run.json")}
