"""`rcg repro`: DVC with the switches that our store needs, checked before anything runs."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from components.errors import ConfigError
from flows.children import python
from flows.execution.dvc_state import mend
from flows.settings import Settings, load_settings

_log = logging.getLogger(__name__)


def repro(arguments: list[str], folder: Path = Path(), env: Mapping[str, str] | None = None) -> int:
    """Run `dvc repro` in the folder and return its exit code; `env` is added to the environment.

    What an earlier DVC that was killed left there is mended first. DVC's run-cache is off: it would "restore" stages
    whose bytes the store does not hold.
    Raises: ConfigError when this folder cannot be reproduced at all.
    """
    check_folder(folder)
    command = [*dvc_command(), "repro", "--no-run-cache", *arguments]
    return ended(command, folder, dvc_env(folder) | dict(env or {}))


def ended(command: list[str], folder: Path, env: Mapping[str, str]) -> int:
    """The exit code of a DVC. An interrupt reaches it, too: it is given the time to leave its files whole."""
    with subprocess.Popen(command, cwd=folder, env=env) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # the grace of an interrupt ends this, too
            raise


def end_stages() -> None:
    """SIGTERM to the stages that this process's DVCs run: they save what they have and stop, and DVC ends after them.

    An interrupt of a terminal reaches them by itself; a signal that was sent to this process alone does not.
    """
    for dvc in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            for stage in dvc.children():  # what a stage started is its own to end
                stage.terminate()


def check_folder(folder: Path) -> Settings:
    """The settings, after a look whether the folder is a project that DVC can work in. Raises: ConfigError."""
    for name, fix in (
        ("dvc.yaml", "run this in the project folder"),
        ("collection.lock", "list your pictures first: `rcg snapshot FOLDER`, or `rcg snapshot demo`"),
        (".git", "DVC needs a git repository: `git init`"),
    ):
        if not (folder / name).exists():
            raise ConfigError(f"{name} is missing here", got=folder.absolute(), fix=fix)
    for line in mend(folder):
        _log.warning("%s", line)
    return load_settings()


def dvc_command() -> list[str]:
    """What starts DVC: that beside this Python, or one on the path. Raises: ConfigError."""
    dvc = Path(sys.executable).with_name("dvc")
    if not dvc.exists() and shutil.which("dvc") is None:
        raise ConfigError("dvc is not installed beside rcg", expected=dvc, fix="`make setup`")
    return python("flows.execution.quiet_dvc") if dvc.exists() else ["dvc"]


def dvc_env(folder: Path) -> dict[str, str]:
    """The environment in which dvc finds plain `rcg`, which its stages call, and keeps its caches to this user.

    Those hold pickles, and DVC's own place for them is a folder of /var/tmp that every user may write to.
    """
    cache = folder.absolute() / ".rcg" / "dvc"
    cache.mkdir(parents=True, exist_ok=True)
    cache.chmod(0o700)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {"DVC_SITE_CACHE_DIR": str(cache)} | os.environ | {"PATH": path, "PYTHONSAFEPATH": "1"}
