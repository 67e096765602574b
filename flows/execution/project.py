"""A project: params, settings, store, executor and tracking put together."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components.store import open_store, prove_store
from components.store.base import Store
from flows.execution.work import Display, Doing, Log, Logs, make_spec
from flows.executors import Executor, Launcher, fit_threads, open_executor, open_launcher
from flows.identity.artifact import canonical_json, digest_of
from flows.identity.closure import module_digests
from flows.identity.fingerprint import LOCK
from flows.pipeline.params import Params, load_params
from flows.pipeline.table import Need, Stage, check_name, pipeline
from flows.runs.records import CommittedRun, Spec
from flows.runs.workspace import Workspace
from flows.settings import Settings, load_settings
from flows.tracking import LiveLog, StageRecord, Tracking, pipeline_id, resolve_tracking

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Project:
    """A checkout: its params, settings and store. Commands build one and hand it down."""

    root: Path
    settings: Settings

    @classmethod
    def here(cls) -> "Project":
        """The project in the current folder; for commands only."""
        return cls(Path.cwd(), load_settings())

    @cached_property
    def params(self) -> Params:
        return load_params(self.root / "params.yaml")

    @cached_property
    def sections(self) -> dict[str, Any]:
        """The stages' sections of params.yaml as checked plain data."""
        checked = self.params.model_dump(mode="json")
        return {name: checked[name] for name in pipeline(checked)}

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """The stages that params.yaml asks for, parents first."""
        return pipeline(self.sections)

    def stage(self, name: str) -> Stage:
        """One of them. Raises: ConfigError naming the nearest stage."""
        return self.stages[check_name(name, self.stages)]

    @cached_property
    def store(self) -> Store:
        store = open_store(self.settings.store)
        prove_store(store)
        return store

    @cached_property
    def lock_text(self) -> str | None:
        path = self.root / LOCK
        return path.read_text() if path.is_file() else None

    @cached_property
    def workspace(self) -> Workspace:
        return Workspace(self.root)

    @property
    def models(self) -> Path:
        """Where bundles of remote stores are kept, by digest."""
        return self.root / ".rcg/models"

    @cached_property
    def tracking(self) -> Tracking | None:
        return resolve_tracking(self.settings.tracking, self.root)

    @cached_property
    def pipeline(self) -> str:
        """Identity of the whole pipeline as it stands: the parent run in MLflow."""
        modules = {
            module: digest for stage in self.stages.values() for module, digest in module_digests(stage.module).items()
        }
        return pipeline_id(self.sections, self.lock_text or "", digest_of(canonical_json(modules)))

    def spec(self, stage: Stage) -> Spec:
        """What running the stage now would do. Raises: MissingError for parents that are not there."""
        lock, source = None if stage.needs else self.lock_text, self.settings.source
        return make_spec(stage, self.sections[stage.name], self.store, self.root, source=source, lock=lock)

    def committed(self, name: str) -> CommittedRun:
        """The run that artifacts/<name>/ stands for. Raises: MissingError."""
        return self.workspace.parent(self.store, Need(check_name(name)))

    def doing(
        self, *, context: Mapping[str, str], tracked: bool = True, here: bool = False, display: Display | None = None
    ) -> Doing:
        """Where and how fast, from the settings; `here`: in this process, whatever they say."""
        executor: Executor | Launcher
        if here:
            executor = open_executor("inline")
        elif self.settings.executor == "kuberay":
            executor = open_launcher(self.settings, self.root, _log.info)
        else:
            executor = open_executor(self.settings.executor, max_failures=self.settings.worker.max_failures)
        worker = self.settings.worker
        changes: dict[str, object] = {"workers": 1, "device": "cpu"} if here else {}
        if worker.fit_threads is None:
            changes["fit_threads"] = fit_threads()

        def open_log(spec: Spec, attempt: int) -> Log:
            shown = [] if display is None else [display.stage(spec.stage, attempt)]
            if not tracked or self.tracking is None:
                return Logs(shown)
            return Logs([*shown, LiveLog(self.tracking, self.record(spec, context, reused=False), _log.warning)])

        return Doing(
            store=self.store,
            executor=executor,
            settings=worker.model_copy(update=changes),
            context=context,
            open_log=open_log,
            on_follow=None if display is None else display.follow,
            on_event=None if display is None else display.event,
        )

    def record(self, spec: Spec, context: Mapping[str, str], *, reused: bool) -> StageRecord:
        """The stage's run as it is logged to MLflow."""
        return StageRecord.of(
            spec,
            pipeline=self.pipeline,
            pipeline_params=self.sections,
            store=self.store.uri,
            reused=reused,
            tags=context,
        )
