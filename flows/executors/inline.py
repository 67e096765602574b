"""The default executor: the stage runs in this process, as the only rank."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator

from components.errors import ConfigError
from flows.executors.base import Job, Place, RankResult, load_stage, pick_device, run_rank
from flows.runs.records import Spec
from flows.settings import WorkerSettings

_log = logging.getLogger(__name__)


class InlineExecutor:
    """Never imports ray. SIGTERM lets a stage save what it has and stop; a second one ends at once."""

    def check(self, spec: Spec, settings: WorkerSettings) -> None:
        if settings.workers != 1:
            got = f"workers: {settings.workers}"
            raise ConfigError(
                "the inline executor has one worker", got=got, fix="set RCG_EXECUTOR=ray, or RCG_WORKERS=1"
            )
        pick_device(settings.device)
        load_stage(spec)

    def run(self, job: Job) -> list[RankResult]:
        device = pick_device(job.settings.device)
        with _sigterm() as stopping:
            return [run_rank(job, Place(rank=0, world_size=1, device=device, stopping=stopping))]


@contextlib.contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGTERM into an answer to `stopping()`. Signals reach the main thread only."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def on_signal(_number: int, _frame: object) -> None:
        if asked.is_set():
            raise SystemExit(128 + signal.SIGTERM)
        asked.set()
        _log.warning("asked to stop: the stage saves what it has first; ask again to stop at once")

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
