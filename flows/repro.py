"""`rcg repro`: DVC with the switches that our store needs, checked before anything runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from components.errors import ConfigError
from flows.settings import load_settings


def repro(arguments: list[str]) -> int:
    """Run `dvc repro` here and return its exit code.

    DVC's run-cache is off: it would "restore" stages whose bytes the store does not hold.
    Raises: ConfigError when this folder cannot be reproduced at all.
    """
    for name, fix in (
        ("dvc.yaml", "run this in the project folder"),
        ("collection.lock", "list your pictures first: `rcg snapshot FOLDER`, or `rcg snapshot demo`"),
        (".git", "DVC needs a git repository: `git init`"),
    ):
        if not Path(name).exists():
            raise ConfigError(f"{name} is missing here", got=Path.cwd(), fix=fix)
    load_settings()
    dvc = Path(sys.executable).with_name("dvc")
    if not dvc.exists() and shutil.which("dvc") is None:
        raise ConfigError("dvc is not installed beside rcg", expected=dvc, fix="`make setup`")
    command = [str(dvc) if dvc.exists() else "dvc", "repro", "--no-run-cache", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # stages are run as plain `rcg`
    return subprocess.run(command, env=os.environ | {"PATH": path}, check=False).returncode
