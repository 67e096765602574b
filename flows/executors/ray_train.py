"""The executor `ray`: a stage on N workers of Ray Train, local or of the cluster that RAY_ADDRESS names.

With ray_local the only importer of ray. Checkpoints, events and artifacts go through our store, as everywhere; Ray
keeps nothing.
"""

import contextlib
import os
import re
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import ray
import torch
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.torch.config import _setup_torch_process_group

from components.errors import ConfigError, RcgError, RetryableError, StoreError, StoreRefusedError
from components.store import open_store
from components.training.report import Report
from flows.executors.base import Attempt, Place, RankResult, load_stage, pick_device, run_rank
from flows.executors.ray_local import LocalTorchConfig, environment, local_ray
from flows.executors.sigterm import on_sigterm
from flows.runs.events import read_events
from flows.runs.records import Spec
from flows.settings import WorkerSettings

_EVERYWHERE = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how soon the end of the workers, or of one, is noticed
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
POD_STOPS, POD_RANK = Path("/tmp/rcg-stops"), Path("/tmp/rcg-rank")
"""Of a worker's pod on a cluster: its preStop hook makes the first and waits for the process that the second names."""
_EVENTS_EVERY_S = 1.0
_LOOK_S = 60
_WAIT_S = 7 * 24 * 3600
"""How long ranks may wait for each other: as long as one of them needs for its share of encode; Ray notices the dead.
"""
_MEET_S = 300
"""How long they may take to find each other at the start."""
_SETUP = _setup_torch_process_group.__name__
"""Stands in what Ray tells of a failed start of the process group."""


@dataclass(frozen=True)
class _Task:
    """What each worker is sent."""

    attempt: Attempt
    threads: int
    cuda: bool
    stop_file: Path
    """Appears when the driver is told to stop; on another machine it never does: see POD_STOPS."""


class RayExecutor:
    """N workers in one process group; lost workers are replaced `max_failures` times and go on from the checkpoint."""

    def __init__(self, max_failures: int) -> None:
        self.max_failures = max_failures

    def check(self, spec: Spec, settings: WorkerSettings) -> None:
        load_stage(spec)
        if _on_cluster():
            return
        device = pick_device(settings.device)
        if device.type == "cuda" and torch.cuda.device_count() < settings.workers:
            raise _too_few_gpus(torch.cuda.device_count(), settings.workers)

    def run(self, attempt: Attempt) -> list[RankResult]:
        with running_ray(attempt.settings.workers) as folder, on_sigterm((folder / "stop").touch), _events(attempt):
            use_gpu = _has_gpus(attempt.settings)
            cuda = use_gpu and attempt.settings.device != "cpu"
            task = _Task(replace(attempt, reporter=None), torch.get_num_threads(), cuda, folder / "stop")
            return self._fit(task, folder, use_gpu=use_gpu)

    def _fit(self, task: _Task, folder: Path, *, use_gpu: bool) -> list[RankResult]:
        settings = task.attempt.settings
        trainer: Any = TorchTrainer(  # a union of two classes to a type checker, as Ray declares it
            cast(Any, _rank),
            train_loop_config={"task": task},
            torch_config=_torch_config("nccl" if task.cuda else "gloo", folder),
            scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=use_gpu),
            run_config=RunConfig(
                name=f"{task.attempt.spec.stage}-{task.attempt.number}",
                storage_path=str(folder / "results"),
                failure_config=FailureConfig(max_failures=self.max_failures),
                callbacks=cast(Any, [_StopWhenItWouldComeAgain(task.stop_file)]),
            ),
        )
        try:
            results: list[RankResult] = trainer.fit().return_value
        except ray.exceptions.OutOfMemoryError as error:  # before any rank ran
            raise _out_of_memory(error) from None
        except ray.train.TrainingFailedError as failure:
            if task.cuda and not _torch_finds_gpus():  # told by NCCL, before any rank runs, in words of its own
                fix = "give the workers' nodes a working GPU driver, or set RCG_DEVICE=cpu"
                raise ConfigError("a worker has a GPU by Ray's count, and torch finds none there", fix=fix) from None
            raise cause_of(failure, self.max_failures) from None
        return results


def _rank(config: Mapping[str, _Task]) -> list[RankResult]:
    """The body of every worker; returns all ranks' results."""
    task, context = config["task"], ray.train.get_context()
    torch.set_num_threads(task.threads)  # as many as an inline run has: the number of threads may move bits
    n = context.get_world_size()
    device = get_device() if task.cuda else torch.device("cpu")
    place = Place(context.get_world_rank(), n, device, stopping=lambda: task.stop_file.exists() or _pod_stops())
    try:
        with _waited_for():
            _meet()
            mine = run_rank(task.attempt, place)
    except RcgError as error:
        error.got = error.expected = None  # anything may be in there; the message, which has them, is what travels
        raise
    except Exception as error:
        error.add_note(traceback.format_exc())
        raise
    results: list[Any] = [None] * n
    dist.all_gather_object(results, mine)
    return results


def _meet() -> None:
    """All ranks answer each other once within _MEET_S; from then on they wait as long as it takes.

    Gloo connects its ranks before this; NCCL does here. Raises: ConfigError.
    """
    if dist.get_world_size() == 1:
        return
    try:
        dist.barrier()
    except RuntimeError as error:
        if "timed out" in str(error).lower():
            raise _unreachable(error) from None
        raise
    dist.set_timeout(timedelta(seconds=_WAIT_S))


class _StopWhenItWouldComeAgain(UserCallback):
    """Ends the job at the first error that a restart would only repeat; raised here, Ray does not retry it."""

    def __init__(self, stop_file: Path) -> None:
        self.stop_file = stop_file

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:  # noqa: ARG002
        for error in worker_exceptions.values():
            a_pod_stops = type(error) is RetryableError and not self.stop_file.exists()  # another one takes its place
            if _comes_again(error) and not a_pod_stops:
                raise error


def _comes_again(error: BaseException) -> bool:
    """False for what a lost worker, store or connection looks like; torch reports a lost peer as RuntimeError."""
    if isinstance(error, RcgError):
        return isinstance(error, StoreRefusedError) or not isinstance(error, StoreError)
    by_ray = type(error).__module__.split(".")[0] == "ray"
    return not by_ray and not isinstance(error, OSError | MemoryError | RuntimeError)


def _pod_stops() -> bool:
    return _in_pod() and POD_STOPS.exists()


def _in_pod() -> bool:
    return "RAY_CLUSTER_NAME" in os.environ  # set by the operator


@contextlib.contextmanager
def _waited_for() -> Iterator[None]:
    """The pod's preStop hook waits for the end of this block."""
    if not _in_pod():
        yield
        return
    POD_RANK.write_text(str(os.getpid()))
    try:
        yield
    finally:
        POD_RANK.unlink(missing_ok=True)


def cause_of(failure: ray.train.TrainingFailedError, max_failures: int) -> BaseException:
    """What to tell the caller: the stage's own error where there is one."""
    if isinstance(failure, ray.train.ControllerError):
        cause = failure.controller_failure
        if isinstance(cause, ray.exceptions.OutOfMemoryError):
            return _out_of_memory(cause)
        return _unreachable(cause) if _SETUP in str(cause) else cause
    errors: dict[int, Exception] = getattr(failure, "worker_failures", {})
    own = [error for error in errors.values() if isinstance(error, RcgError)]
    if own:
        return own[0]
    starved = [error for error in errors.values() if isinstance(error, ray.exceptions.OutOfMemoryError)]
    if starved:
        return _out_of_memory(starved[0])
    got = "; ".join(f"rank {rank}: {_last_line(error)}" for rank, error in errors.items())
    fix = "run the same command again: it continues from the checkpoint"
    return RetryableError(f"workers were lost {max_failures + 1} times", got=got or failure, fix=fix)


def _out_of_memory(error: ray.exceptions.OutOfMemoryError) -> ConfigError:
    """Ray ends a worker shortly before the kernel would, and tells it on some sixty lines."""
    words = re.search(r"Memory usage .*? exceeded threshold of .*", str(error))
    return ConfigError(
        "a worker needed more memory than there is",
        got=words[0] if words else _last_line(error),
        fix="raise RCG_WORKER_MEMORY (on a cluster), take a smaller batch, or run fewer workers on one machine",
    )


def _unreachable(error: BaseException) -> ConfigError:
    return ConfigError(
        "the workers do not reach each other",
        got=_last_line(error),
        expected="every port open between them, on one network",
        fix="let the network policy admit pods of one job among each other; where pods have several networks, name the"
        " one to use: RCG_GLOO_INTERFACE (CPU), RCG_NCCL_INTERFACE (GPU)",
    )


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _on_cluster() -> bool:
    return bool(os.environ.get("RAY_ADDRESS")) or ray.is_initialized()


def _has_gpus(settings: WorkerSettings) -> bool:
    """Are workers placed by GPUs, whatever they compute on? Raises: ConfigError when there are fewer than asked for."""
    if settings.gpus_per_worker:
        return True  # pods that were lost and come again count too: Ray waits for them
    n_gpus = int(cast(Any, ray).cluster_resources().get("GPU", 0))
    if settings.device == "cuda" and n_gpus < settings.workers:
        raise _too_few_gpus(n_gpus, settings.workers)
    return settings.device != "cpu" and n_gpus >= settings.workers


def _torch_finds_gpus() -> bool:
    """Asks a worker that is given a GPU, not this machine; False only if it says so."""
    look: Any = ray.remote(num_gpus=1, max_retries=0)(torch.cuda.is_available)
    with contextlib.suppress(ray.exceptions.RayError):
        return bool(ray.get(look.remote(), timeout=_LOOK_S))
    return True


def _too_few_gpus(found: int, wanted: int) -> ConfigError:
    what = f"{wanted} workers need {wanted} GPUs"
    return ConfigError(what, got=f"{found} GPUs", fix="lower RCG_WORKERS, or set RCG_DEVICE=cpu")


@contextlib.contextmanager
def running_ray(n_workers: int) -> Iterator[Path]:
    """A connection to Ray and a scratch folder. Only a cluster that was started here is shut down at the end."""
    own = {name: value for name, value in _EVERYWHERE.items() if name not in os.environ}
    with environment(own), _connected(n_workers) as folder:
        yield folder


@contextlib.contextmanager
def _connected(n_workers: int) -> Iterator[Path]:
    if not _on_cluster():
        with local_ray(n_workers) as folder:
            yield folder
        return
    found = ray.is_initialized()
    with tempfile.TemporaryDirectory(prefix="rcg-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        try:
            if not found:
                ray.init(log_to_driver=False)
            yield Path(scratch)
        finally:
            if not found:
                ray.shutdown()


def _torch_config(backend: str, folder: Path) -> TorchConfig:
    """Ranks on a Ray of our own, on this machine, meet in `folder`; else at an address of rank 0's."""
    if os.environ.get("RAY_ADDRESS"):
        return TorchConfig(backend=backend, timeout_s=_MEET_S)
    return LocalTorchConfig(backend=backend, timeout_s=_MEET_S, folder=str(folder))


@contextlib.contextmanager
def _events(attempt: Attempt) -> Iterator[None]:
    """Passes rank 0's reports on to the attempt's reporter: they come through the store, from whatever machine."""
    done, store, reporter = threading.Event(), open_store(attempt.store_uri), attempt.reporter
    if reporter is None:
        yield
        return

    def follow() -> None:
        position, last = (attempt.number, 0), False
        while not last:
            last = done.wait(_EVENTS_EVERY_S)
            with contextlib.suppress(StoreError):
                for event in read_events(store, attempt.spec.prefix, after=position):
                    position = event.position
                    reporter.on_report(Report(event.step, event.metrics, {}, event.total_steps))

    thread = threading.Thread(target=follow, name="ray events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
