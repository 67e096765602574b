"""`rcg repro --parallel`: stages that do not wait for each other run at the same time; DVC alone takes one by one.

Each stage is a `dvc repro --single-item` of its own. DVC locks the repository only while it looks at files, not while
a stage's command runs, so such processes go together. Starting DVC takes a second; a chain of stages with nothing
beside it is therefore handed to one process.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from components.errors import ConfigError
from components.printable import printable
from flows.execution.dvc import check_folder, dvc_command, dvc_env, ended
from flows.pipeline.table import Stage

_LINE = threading.Lock()


def repro_parallel(
    arguments: list[str],
    stages: Mapping[str, Stage],
    folder: Path = Path(),
    env: Mapping[str, str] | None = None,
    *,
    jobs: int | None = None,
) -> int:
    """Run every stage as soon as those that it needs are done, at most `jobs` at a time.

    `jobs` None: as many as this machine has cores; as many as can, where stages run elsewhere. After a failure no other
    stage starts, and those at work finish. Returns the exit code of the first failure, or 0.
    Raises: ConfigError for targets among the arguments, which all go to dvc, and for a folder that is no project.
    """
    targets = [argument for argument in arguments if not argument.startswith("-")]
    if targets:
        raise ConfigError("--parallel runs the whole pipeline", got=" ".join(targets), fix="leave the targets out")
    settings = check_folder(folder)
    if jobs is None:
        jobs = len(stages) if settings.executor == "kuberay" else os.cpu_count() or 1
    return _Run(arguments, folder, dvc_env(folder) | dict(env or {}), stages, jobs).run()


class _Run:
    """One pass over the stages."""

    def __init__(
        self, arguments: list[str], folder: Path, env: Mapping[str, str], stages: Mapping[str, Stage], jobs: int
    ) -> None:
        self.command = [*dvc_command(), "--wait-for-lock", "repro", "--no-run-cache", "--single-item", *arguments]
        self.folder, self.env, self.stages, self.jobs = folder, env, stages, jobs
        self.done: set[str] = set()
        self.code = 0

    def run(self) -> int:
        running: dict[Future[int], list[str]] = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            while True:
                at_work = [name for chain in running.values() for name in chain]
                ready = [] if self.code else self.ready(self.done, at_work)
                beside = self.jobs > 1 and len(at_work) + len(ready) > 1
                for name in ready[: self.jobs - len(running)]:
                    chain = [name] if beside else self.chain(name)
                    running[pool.submit(self.repro, chain, beside=beside)] = chain
                if not running:
                    return self.code
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self.done.update(running.pop(future))
                    self.code = self.code or future.result()

    def ready(self, done: Collection[str], at_work: Collection[str] = ()) -> list[str]:
        """Stages that may start now, in the pipeline's order."""
        return [
            name
            for name, stage in self.stages.items()
            if name not in done and name not in at_work and all(need.stage in done for need in stage.needs)
        ]

    def chain(self, name: str) -> list[str]:
        """A stage and those that follow it one by one, with no other to run beside them."""
        chain = [name]
        while len(ready := self.ready({*self.done, *chain})) == 1 or (ready and self.jobs == 1):
            chain.append(ready[0])
        return chain

    def repro(self, chain: list[str], *, beside: bool) -> int:
        """Run DVC over the stages; its exit code. Lines of stages that run side by side begin with their names."""
        command = [*self.command, *chain]
        if not beside:
            return ended(command, self.folder, self.env)
        width = max(map(len, self.stages))
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                with _LINE:
                    sys.stdout.write(f"{chain[0]:<{width}} | {printable(line)}")
                    sys.stdout.flush()
        return process.returncode
