"""What an executor is given and what it gives back. An executor knows no stage: the attempt names the function."""

import contextlib
import errno
import math
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

from pydantic import BaseModel, ValidationError

from components.errors import ArtifactError, ConfigError, DivergedError, MissingError, RcgError, StoreRefusedError
from components.process import machine, pid_exists
from components.store import open_store
from components.store.base import Prefix, Store
from components.training.report import Report
from flows.executors.usage import Usage
from flows.identity.artifact import FileEntry
from flows.identity.environment import part_versions
from flows.runs.events import EventWriter
from flows.runs.lease import FencedStore, check_fence
from flows.runs.records import MEMO, CommittedRun, Spec, load_run
from flows.runs.stored import StoredArtifact, StoredInputs, StoredOutput
from flows.settings import Device, WorkerSettings

if TYPE_CHECKING:
    import torch

METRICS = "metrics.json"
_HARDLY_FREE_BYTES = 1 << 16


class Reporter(Protocol):
    """Whoever wants rank 0's reports live, e.g. MLflow. Must not raise and not be slow."""

    def on_report(self, report: Report) -> None: ...


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run: everything an executor needs, in this process or another."""

    spec: Spec
    store_uri: str
    number: int
    """Fencing number: writes fail once another attempt holds the lease."""
    settings: WorkerSettings
    reporter: Reporter | None = None


@dataclass(frozen=True)
class RankResult:
    """What one rank wrote."""

    rank: int
    device: str
    files: Mapping[str, FileEntry]
    keys: Mapping[str, str]
    threads: int
    """CPU threads of torch; a small model may have been trained on fewer."""


class Executor(Protocol):
    """Runs every rank of an attempt to its end and returns their results; the caller merges and commits them."""

    def check(self, spec: Spec, settings: WorkerSettings) -> None:
        """Raises: ConfigError for what can be known before anything starts."""
        ...

    def run(self, attempt: Attempt) -> list[RankResult]: ...


@dataclass(frozen=True)
class Launch:
    """A run to be had done elsewhere, and who is told of it."""

    spec: Spec
    store: Store
    context: Mapping[str, str]
    """git commit: recorded in run.json."""
    on_report: "Callable[[Report], None]"


class Launcher(ABC):
    """Has a run done by a process elsewhere, which holds the lease and commits; returns what is committed then."""

    @abstractmethod
    def check(self, spec: Spec, settings: WorkerSettings) -> None:
        """Raises: ConfigError for what can be known before anything starts."""

    @abstractmethod
    def launch(self, launch: Launch) -> CommittedRun: ...


@dataclass(frozen=True)
class Place:
    """Which rank this process is, and what it runs on."""

    rank: int
    world_size: int
    device: "torch.device"
    on_report: "Callable[[Report], None] | None" = None
    """Called on every rank at each report, e.g. to keep the ranks in step."""
    stopping: Callable[[], bool] = lambda: False


def pick_device(wanted: Device) -> "torch.device":
    """Raises: ConfigError when a GPU is asked for and there is none."""
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError(
            "no GPU here", got="device: cuda", expected="a CUDA device that torch sees", fix="set RCG_DEVICE=auto"
        )
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def device_name(device: "torch.device") -> str:
    """cpu, or the GPU's model."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def fit_threads() -> bool:
    """Whether trainings choose their number of threads: not where OMP_NUM_THREADS says it, as in a cluster's pods."""
    return "OMP_NUM_THREADS" not in os.environ


def run_rank(attempt: Attempt, place: Place) -> RankResult:
    """Run the stage's function as one rank. The same for every executor."""
    with _scratch(attempt.spec.stage) as folder:
        try:
            return _RankRun(attempt, place, Path(folder)).result()
        except Exception as error:
            if isinstance(error, RcgError):
                raise
            if (out_of_memory := _out_of_memory(attempt.spec.stage, error, place)) is not None:
                raise out_of_memory from None
            if not _is_full(error, folder):
                raise
            fix = "free space there, or point TMPDIR to a larger disk; then run the same command again"
            raise StoreRefusedError("no space left for temporary files", got=folder, fix=fix) from error


@contextlib.contextmanager
def _scratch(stage: str) -> Iterator[str]:
    """A temporary folder; those of processes that were killed are removed first."""
    for path in Path(tempfile.gettempdir()).glob(f"rcg-{machine()}-*"):
        pid = path.name.split("-")[2]
        if pid.isdigit() and not pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
    prefix = f"rcg-{machine()}-{os.getpid()}-{stage}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield folder


def _is_full(error: Exception, folder: str) -> bool:
    """Whether a full disk is behind the error; torch and safetensors hide it in errors of their own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return shutil.disk_usage(folder).free < _HARDLY_FREE_BYTES


def _out_of_memory(stage: str, error: Exception, place: Place) -> ConfigError | None:
    """What to do about work beside the steps of training that does not fit the memory; None for any other error."""
    from components.training.memory import does_not_fit, is_out_of_memory

    if not is_out_of_memory(error):
        return None
    fix = f"lower the batch_size or n of what the section {stage} does there, or take a device with more memory"
    return does_not_fit(place.device, got=f"{stage}: {str(error).splitlines()[0]}", fix=fix)


class _RankRun:
    """One rank's work: its inputs, output and worker are made here and live in `scratch`."""

    def __init__(self, attempt: Attempt, place: Place, scratch: Path) -> None:
        self.attempt, self.place, self.scratch = attempt, place, scratch
        self.plain = open_store(attempt.store_uri)
        run = Prefix(self.plain, attempt.spec.prefix)
        self.store: Store = FencedStore(self.plain, lambda: check_fence(run, attempt.number))
        self.events = EventWriter(
            self.store, attempt.spec.prefix, attempt.number, interval_s=attempt.settings.event_interval_s
        )
        self.usage = Usage(place.device)

    def result(self) -> RankResult:
        import torch

        from components.training.worker import Worker

        spec, settings, place = self.attempt.spec, self.attempt.settings, self.place
        body, params = load_stage(spec)
        output = StoredOutput(
            self.store,
            spec.prefix,
            self.attempt.number,
            self.scratch / "out",
            versions=part_versions(),
            mix_versions=settings.mix_versions,
        )
        private = self.scratch / "private"
        private.mkdir()
        worker = Worker(
            rank=place.rank,
            world_size=place.world_size,
            device=place.device,
            checkpoints=self.checkpoints(),
            report=self.report,
            scratch=private,
            checkpoint_every=settings.checkpoint_every,
            threads=settings.threads,
            compiled=settings.compile,
            micro_batch=settings.micro_batch,
            shard=settings.shard,
            recompute=settings.recompute,
            fit_threads=bool(settings.fit_threads),
            stopping=place.stopping,
        )
        metrics = body(params, self.inputs(), output, worker)
        if place.rank == 0:
            self.finish_events()
            output.write_json(METRICS, check_metrics(spec.stage, metrics))
        return RankResult(place.rank, device_name(place.device), output.files, output.keys, torch.get_num_threads())

    def checkpoints(self) -> Any:
        from components.training.checkpoint import CheckpointDir

        folder = self.scratch / "checkpoints"
        folder.mkdir()
        keep = self.attempt.settings.keep_checkpoints
        place, spec = self.place, self.attempt.spec
        return CheckpointDir(
            self.store,
            spec.prefix,
            self.attempt.number,
            keep,
            folder,
            rank=place.rank,
            world_size=place.world_size,
            before_save=self.events.flush,
        )

    def inputs(self) -> StoredInputs:
        spec = self.attempt.spec
        parents = {}
        for stage, parent in spec.inputs.items():
            run = load_run(self.plain, parent.prefix)
            if run is None or run.digest != parent.digest:
                raise MissingError(
                    f"the {stage} artifact is not in the store", expected=f"{parent.prefix} in {self.plain.uri}"
                )
            parents[stage] = StoredArtifact(self.plain, run, self.scratch / "inputs" / stage)
        return StoredInputs(parents, spec.source, spec.collection_lock, self.scratch)

    def report(self, report: Report) -> None:
        if self.place.rank == 0:
            self.events.on_report(self.usage.beside(report))
            if self.attempt.reporter is not None:
                self.attempt.reporter.on_report(report)
        if self.place.on_report is not None:
            self.place.on_report(report)

    def finish_events(self) -> None:
        """All that was told is in the store on return; of a stage that told nothing, what it used."""
        if not self.usage.looked:
            self.events.on_report(Report(0, self.usage.look()))
        self.events.flush()


def load_stage(spec: Spec) -> tuple[Callable[..., Mapping[str, float]], BaseModel]:
    """The stage's function and its params. Imports the stage, and with it torch.

    Raises: ConfigError for wrong params.
    """
    body = import_module(spec.module).run
    kind = get_type_hints(body)["params"]
    try:
        return body, kind.model_validate(spec.identity.params)
    except ValidationError as error:
        wrong = [f"{spec.stage}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"the params of {spec.stage} are wrong", got="; ".join(wrong)) from error


def check_metrics(stage: str, metrics: Mapping[str, float]) -> Mapping[str, float]:
    """Raises: ArtifactError unless every metric is a number; a number that is not finite is a DivergedError."""
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ArtifactError(f"{stage} returned a metric that is no number", got=f"{name} = {value!r}")
        if not math.isfinite(value):
            raise DivergedError(f"{stage} returned a metric that is not finite", got=f"{name} = {value}")
    return metrics


def merge(results: list[RankResult]) -> tuple[dict[str, FileEntry], dict[str, str]]:
    """Files and keys of all ranks. Raises: ArtifactError when two wrote the same name, but for one memoised file."""
    files: dict[str, FileEntry] = {}
    keys: dict[str, str] = {}
    for result in results:
        both = files.keys() & result.files.keys()
        twice = sorted(n for n in both if keys[n] != result.keys[n] or not keys[n].startswith(MEMO))
        if twice:
            raise ArtifactError(
                "two ranks wrote the same file", got=twice[0], fix="write it on rank 0, or split by worker.rows"
            )
        files.update(result.files)
        keys.update(result.keys)
    return files, keys
