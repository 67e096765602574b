"""Other programs, started so that they run nothing of the folder in which they work, nor of a branch checked out there.

Python with -P does not import from the current folder. Git runs no hook, no file-system monitor and no submodule of the
repository, whatever its configuration says.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
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
_BARE = ("CUDA_VISIBLE_DEVICES", "GOMP_SPINCOUNT", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES",
         "OMP_NUM_THREADS", "PATH", "TZ")  # fmt: skip


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this installation."""
    return [sys.executable, "-P", "-m", module, *arguments]


def git(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[bytes]":
    """A git command in the folder, ended."""
    options = [part for name, value in _GIT.items() for part in ("-c", f"{name}={value}")]
    command = ["git", *options, *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | (env or {}), capture_output=True, check=False)


def bare_environment(home: Path) -> dict[str, str]:
    """What code of others is given: no credential, address or setting of this process, and `home` to write in."""
    given = {name: os.environ[name] for name in _BARE if name in os.environ}
    return given | {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
