"""`rcg repro --parallel`: stages that do not need each other run at the same time; DVC alone takes one by one."""

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from components.errors import ConfigError
from flows.execution.dvc import dvc_command, dvc_env, repro
from flows.pipeline.table import STAGES

TOGETHER = ("rdm", "pixels")
_LINE = threading.Lock()


def repro_parallel(arguments: list[str], folder: Path = Path(), env: Mapping[str, str] | None = None) -> int:
    """What rdm and pixels need, then both at once, then the rest; the exit code of the first failure.

    When one of the two fails, the other is let finish.
    Raises: ConfigError for targets among the arguments, which all go to dvc.
    """
    targets = [argument for argument in arguments if not argument.startswith("-")]
    if targets:
        raise ConfigError("--parallel runs the whole pipeline", got=" ".join(targets), fix="leave the targets out")
    before = [name for name in STAGES if any(need.stage == name for pair in TOGETHER for need in STAGES[pair].needs)]
    return (
        repro([*arguments, *before], folder, env)
        or _side_by_side(arguments, folder, env)
        or repro(arguments, folder, env)
    )


def _side_by_side(arguments: list[str], folder: Path, env: Mapping[str, str] | None) -> int:
    """DVC locks stages one by one while their commands run, so two that share no outs go together."""
    processes = [_start([*arguments, "--single-item", name], name, folder, env) for name in TOGETHER]
    codes = []
    for process, reader in processes:
        codes.append(process.wait())
        reader.join()
    return next((code for code in codes if code), 0)


def _start(
    arguments: list[str], name: str, folder: Path, env: Mapping[str, str] | None
) -> tuple[subprocess.Popen[str], threading.Thread]:
    process = subprocess.Popen(
        [dvc_command(), "repro", "--no-run-cache", *arguments], cwd=folder, env=dvc_env() | dict(env or {}),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    reader = threading.Thread(target=_pass_on, args=(process.stdout, name), daemon=True)
    reader.start()
    return process, reader


def _pass_on(lines: IO[str], name: str) -> None:
    """Body of a thread: what one of them prints, by whole lines."""
    with lines:
        for line in lines:
            with _LINE:
                sys.stdout.write(f"{name:<6} | {line}")
                sys.stdout.flush()
