"""The default executor: the stage runs in this process, as the only rank."""

import logging
import threading

from components.errors import ConfigError
from flows.executors.base import Attempt, Place, RankResult, load_stage, pick_device, run_rank
from flows.executors.sigterm import on_sigterm
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

    def run(self, attempt: Attempt) -> list[RankResult]:
        asked = threading.Event()

        def ask() -> None:
            asked.set()
            _log.warning("asked to stop: the stage saves what it has first; ask again to stop at once")

        device = pick_device(attempt.settings.device)
        with on_sigterm(ask):
            return [run_rank(attempt, Place(rank=0, world_size=1, device=device, stopping=asked.is_set))]
