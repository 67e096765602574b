"""Other programs, started so that they run nothing of the folder in which they work, nor of a branch checked out there.

Python with -P does not import from the current folder. Git runs no hook, no file-system monitor and no submodule of the
repository, whatever its configuration says.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_GIT = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "protocol.ext.allow": "never",
    "protocol.file.allow": "user",  # a remote in a folder that the user names, not one that a submodule names
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "push.recurseSubmodules": "no",
    "safe.bareRepository": "explicit",
    "advice.detachedHead": "false",
}
_BARE = (
    "CUDA_VISIBLE_DEVICES",
    "GOMP_SPINCOUNT",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "PATH",
    "TZ",
)


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this installation."""
    return [sys.executable, "-P", "-m", module, *arguments]


def git(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[bytes]":
    """A git command in the folder, ended."""
    options = [part for name, value in _GIT.items() for part in ("-c", f"{name}={value}")]
    command = ["git", *options, *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | (env or {}), capture_output=True, check=False)


def run_apart(command: list[str], home: Path) -> "subprocess.CompletedProcess[str]":
    """A command that runs code of others, ended: it works in `home` and is given nothing secret of this process.

    It is still a process of this user, and can read the user's files.
    """
    given = {name: os.environ[name] for name in _BARE if name in os.environ}
    env = given | {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    with _closed():
        return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, errors="replace", check=False)


_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


@contextlib.contextmanager
def _closed() -> Iterator[None]:
    """Other processes of this user cannot read this one's memory and environment; root's can. Linux only."""
    if sys.platform != "linux":
        yield
        return
    prctl = ctypes.CDLL(None).prctl
    before = prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_DUMPABLE, before, 0, 0, 0)
