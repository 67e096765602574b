"""Real drivers in forked processes: they run the tiny pipeline on a real store, and can be killed at any store write.

The parent imports torch once; a fork costs milliseconds. The product has no hooks: a child wraps the store's methods.
"""

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import flows.runs.workspace
from components.errors import RcgError
from components.store import local, open_store
from components.training.config import TrainConfig
from components.training.step import Stepper
from flows.execution.work import Doing, Outcome, Timing, make_spec, run_and_publish
from flows.executors.inline import InlineExecutor
from flows.identity.closure import module_digests
from flows.pipeline.table import Need, Stage
from flows.runs.events import Event
from flows.runs.lease import Lease, LeaseRecord
from flows.runs.records import Spec
from flows.settings import WorkerSettings

torch.set_num_threads(1)
_running: set[int] = set()

STEPS = 24
FIT = TrainConfig.model_validate(
    TrainConfig.tiny().model_dump() | {"steps": STEPS, "batch_size": 5, "schedule": "cosine", "log_every": 6}
)
PARAMS: dict[str, dict[str, Any]] = {
    "parts": {"numerics": 1, "n_parts": 3, "rows": 8},
    "fit": {"numerics": 1, "train": FIT.model_dump(mode="json")},
}


class TinyStage(Stage):
    """A stage whose module lies beside the tests."""

    @property
    def module(self) -> str:
        return f"tests.support.tiny_{self.name}"


STAGES = {
    "parts": TinyStage("parts", (), ("index.json", "metrics.json")),
    "fit": TinyStage("fit", (Need("parts"),), ("metrics.json", "plots/*")),
}
Image.preinit()
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # imports torch's compiler
import_module("torch.distributed.checkpoint.hf_storage")
for _stage in STAGES.values():  # what every child would do again
    import_module(_stage.module)
    module_digests(_stage.module)


@dataclass(frozen=True)
class Project:
    """A workspace, a store and a source folder below one temporary folder."""

    root: Path
    heartbeat_s: float = 10.0

    @property
    def source(self) -> Path:
        folder = self.root / "source"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def store(self) -> local.LocalStore:
        return local.LocalStore(self.root / "store")

    def copy_to(self, root: Path) -> "Project":
        """The same project elsewhere."""
        shutil.copytree(self.root, root)
        return Project(root, self.heartbeat_s)

    def spec(self, name: str) -> Spec:
        lock = "the pictures" if name == "parts" else None
        return make_spec(
            STAGES[name], PARAMS[name], open_store(self.store.uri), self.root, source=str(self.source), lock=lock
        )

    def drive(self, name: str, **more: Any) -> Outcome:
        """What `rcg run` does, in this process."""
        return run_and_publish(STAGES[name], self.spec(name), self.root, self.doing(**more))

    def doing(self, **more: Any) -> Doing:
        return Doing(
            store=open_store(self.store.uri),
            executor=InlineExecutor(),
            settings=WorkerSettings(checkpoint_every=5, event_interval_s=3600),
            timing=Timing(self.heartbeat_s, poll_s=0.02),
            **more,
        )

    def start(self, name: str, before: Callable[[], None] = lambda: None) -> "Driver":
        """Fork a driver. `before` runs in the child, e.g. to arm a kill."""
        report = self.root / f"driver-{time.monotonic_ns()}.json"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python >= 3.12 warns of forks
            pid = os.fork()
        if pid == 0:
            self._child(name, before, report)
        _running.add(pid)
        return Driver(pid, report)

    def _child(self, name: str, before: Callable[[], None], report: Path) -> None:
        code = 1
        try:
            before()
            report.write_text(json.dumps(self._told(name)))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _told(self, name: str) -> dict[str, Any]:
        events: list[Event] = []
        followed: list[LeaseRecord] = []

        def on_follow(holder: LeaseRecord) -> None:
            followed.append(holder)
            (self.root / f"following-{os.getpid()}").touch()

        try:
            outcome = self.drive(name, on_follow=on_follow, on_event=events.append)
        except RcgError as error:
            return {"error": type(error).__name__, "message": str(error), "code": error.exit_code}
        return {
            "how": outcome.how,
            "digest": outcome.run.digest,
            "attempt": outcome.run.record.attempt,
            "followed": [holder.attempt for holder in followed],
            "steps": [event.step for event in events],
        }


@dataclass(frozen=True)
class Driver:
    """A forked driver."""

    pid: int
    report: Path

    def wait(self) -> dict[str, Any]:
        """What it told at its end; {"signal": n} if it was killed."""
        _, status = os.waitpid(self.pid, 0)
        _running.discard(self.pid)
        if os.WIFSIGNALED(status):
            return {"signal": os.WTERMSIG(status)}
        assert os.WEXITSTATUS(status) == 0, "the driver crashed; see stderr"
        told: dict[str, Any] = json.loads(self.report.read_text())
        return told

    def is_following(self) -> bool:
        return (self.report.parent / f"following-{self.pid}").exists()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """A temporary folder in memory where there is such a place: hundreds of runs sync thousands of files.

    Drivers that a failed test left behind end with it.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        try:
            yield Path(folder)
        finally:
            for pid in list(_running):
                os.kill(pid, signal.SIGKILL)
                Driver(pid, Path()).wait()


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for a condition of another process."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def count_writes(into: Path) -> Callable[[], None]:
    """Arm a child so that it appends one line per change of the file system that others can see."""

    def note(name: str) -> None:
        with into.open("a") as file:
            file.write(f"{name}\n")

    return lambda: _wrap_writes(note)


def kill_at_write(number: int) -> Callable[[], None]:
    """Arm a child so that it dies just before its write `number` (from 1) shows: the bytes are in a temporary file."""
    written = 0

    def count(_name: str) -> None:
        nonlocal written
        written += 1
        if written == number:
            die()

    return lambda: _wrap_writes(count)


def _wrap_writes(before: Callable[[str], None]) -> None:
    publish, swap_rename, delete = local._publish, Path.rename, local.LocalStore.delete

    def on_publish(temporary: Path, final: Path, key: str, **conditions: Any) -> str:
        before(key)
        return publish(temporary, final, key, **conditions)

    def on_delete(self: local.LocalStore, key: str) -> None:
        before(f"delete {key}")
        delete(self, key)

    def on_rename(self: Path, target: Path) -> Path:
        before(f"rename {self.name}")
        return swap_rename(self, target)

    local._publish = on_publish
    local.LocalStore.delete = on_delete  # type: ignore[method-assign]
    flows.runs.workspace.Path.rename = on_rename  # type: ignore[method-assign]


def release_waits_for(file: Path) -> Callable[[], None]:
    """Arm a child so that it keeps its lease, at the end of its work, until the file is there."""
    release = Lease.release

    def on_release(self: Lease) -> None:
        until(file.exists)
        release(self)

    def arm() -> None:
        Lease.release = on_release  # type: ignore[method-assign]

    return arm


def kill_in_step(step: int) -> Callable[[], None]:
    """Arm a child so that it dies in training step `step`, between gradient and update of later code."""
    call = Stepper.__call__

    def on_step(self: Stepper, number: int, batch: Any) -> Any:
        scalars = call(self, number, batch)
        if number == step:
            die()
        return scalars

    def arm() -> None:
        Stepper.__call__ = on_step  # type: ignore[method-assign]

    return arm
