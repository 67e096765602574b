"""What the commands do with runs: params, settings, store, executor and tracking put together."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from components.errors import ConfigError, MissingError
from components.store import open_store, prove_store
from components.store.base import Store
from flows.execution.job import Doing, Outcome, make_spec, run_job
from flows.execution.progress import StageLog, follow_line
from flows.executors import Executor, Launcher, WorkerSettings, fit_threads, open_executor, open_launcher
from flows.identity.artifact import canonical_json, digest_of
from flows.identity.closure import module_digests
from flows.identity.environment import git_state
from flows.identity.fingerprint import LOCK
from flows.pipeline.checked import checked_sections
from flows.pipeline.table import KINDS, Need, Stage, check_name, pipeline
from flows.runs.lookup import read_spec
from flows.runs.records import CommittedRun, Spec, full_fingerprint, load_run, run_prefix
from flows.runs.transfer import adopt, adopt_checkpoints, data_copy, pull
from flows.runs.workspace import Workspace
from flows.settings import Settings, load_settings
from flows.tracking import LiveLog, StageRecord, Tracking, note, pipeline_id, resolve_tracking

if TYPE_CHECKING:
    from flows.pipeline.params import Params


@dataclass(frozen=True)
class Project:
    """This checkout: its params, settings and store."""

    root: Path
    settings: Settings

    @classmethod
    def here(cls) -> "Project":
        """The project in the current folder."""
        return cls(Path.cwd(), load_settings())

    @cached_property
    def params(self) -> "Params":
        from flows.pipeline.params import load_params

        return load_params(self.root / "params.yaml")

    @cached_property
    def sections(self) -> dict[str, Any]:
        """The stages' sections of params.yaml as checked plain data."""
        checked = checked_sections(self.root)
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

    @cached_property
    def tracking(self) -> Tracking | None:
        return resolve_tracking(self.settings.mlflow_uri, self.settings.mlflow_experiment, root=self.root)

    @cached_property
    def pipeline(self) -> str:
        """Identity of the whole pipeline as it stands: the parent run in MLflow."""
        modules = {
            module: digest for stage in self.stages.values() for module, digest in module_digests(stage.module).items()
        }
        return pipeline_id(self.sections, self.lock_text or "", digest_of(canonical_json(modules)))

    def spec(self, stage: Stage) -> Spec:
        """What running the stage now would do. Raises: MissingError for parents that are not there."""
        lock = None if stage.needs else self.lock_text
        return make_spec(
            stage, self.sections[stage.name], self.store, self.root, source=self.settings.source, lock=lock
        )

    def doing(self, *, context: Mapping[str, str], tracked: bool = True, here: bool = False) -> Doing:
        """Where and how fast, from the settings; `here`: in this process, whatever they say."""
        executor: Executor | Launcher
        if here:
            executor = open_executor("inline")
        elif self.settings.executor == "kuberay":
            executor = open_launcher(self.settings, self.root, say)
        else:
            executor = open_executor(self.settings.executor, max_failures=self.settings.max_failures)
        worker = WorkerSettings(
            n_workers=1 if here else self.settings.workers,
            device="cpu" if here else self.settings.device,
            threads=self.settings.threads,
            checkpoint_every=self.settings.checkpoint_every,
            keep_checkpoints=self.settings.keep_checkpoints,
            compiled=self.settings.compile,
            fit_threads=fit_threads(),
            mix_versions=self.settings.mix_versions,
            gpus_per_worker=self.settings.gpus_per_worker,
        )

        def open_log(spec: Spec, attempt: int) -> StageLog:
            tracking = self.tracking if tracked else None
            live = None if tracking is None else LiveLog(tracking, self.record(spec, context, reused=False), warn)
            return StageLog(spec.stage, attempt, live)

        return Doing(
            store=self.store,
            executor=executor,
            settings=worker,
            context=context,
            open_log=open_log,
            on_follow=lambda lease: typer.echo(
                f"{lease.holder} is at work on this run; following attempt {lease.attempt}"
            ),
            on_event=follow_line,
        )

    def record(self, spec: Spec, context: Mapping[str, str], *, reused: bool) -> StageRecord:
        return StageRecord.of(
            spec,
            pipeline=self.pipeline,
            pipeline_params=self.sections,
            store=self.store.uri,
            reused=reused,
            tags=context,
        )


def say(message: str) -> None:
    """One line on stderr, beside a progress bar."""
    typer.echo(message, err=True)


def warn(message: str) -> None:
    """One yellow line on stderr."""
    typer.secho(f"warning: {message}", fg="yellow", err=True)


def run_stage(name: str) -> str:
    """Do the stage or find it done; returns the line to print."""
    project = Project.here()
    stage = project.stage(name)
    spec = project.spec(stage)
    context = git_state(project.root)
    here = stage.name == "bundle" and project.settings.executor == "kuberay"  # a job's start would take longer
    outcome = run_job(stage, spec, project.root, project.doing(context=context, here=here))
    if outcome.how != "made":
        note(project.tracking, project.record(spec, context, reused=True), warn)
    if stage.name == "bundle":
        _register_quietly(project)
    return told(outcome, f"artifacts/{stage.name}")


def told(outcome: Outcome, where: str) -> str:
    """One line on what a stage came to."""
    words = {"made": "done", "reused": "already done", "followed": "done by the process that was followed"}
    run = outcome.run
    seconds = (run.record.ended_ms - run.record.started_ms) / 1000
    took = f" in {seconds:.1f} s" if outcome.how == "made" else ""
    return f"{run.stage}: {words[outcome.how]}{took} · {where} · run {run.fingerprint[:10]} · content {run.digest[:10]}"


def adopt_run(name: str, source: str, reason: str) -> str:
    """Accept another run's result for the stage as it stands now."""
    project = Project.here()
    stage = project.stage(name)
    spec = project.spec(stage)
    fingerprint = full_fingerprint(project.store, stage.name, source)
    if load_run(project.store, run_prefix(stage.name, fingerprint)) is None:
        step = adopt_checkpoints(project.store, spec, source, reason)
        return f"{stage.name}: `rcg run {stage.name}` will go on from step {step} of run {fingerprint[:10]}"
    run = adopt(project.store, spec, source, reason)
    project.workspace.publish(project.store, run, stage)
    return f"{stage.name}: run {run.fingerprint[:10]} now has the result of {source[:10]} · content {run.digest[:10]}"


def copy_data(source: str, names: list[str]) -> str:
    """Copy the runs that artifacts/ names from another store."""
    project = Project.here()
    stages = [check_name(name) for name in names] or list(KINDS)
    pointers = {stage: project.workspace.pointer(stage) for stage in stages}
    absent = [stage for stage in names if pointers[stage] is None]
    if absent:
        raise MissingError(f"this checkout has no artifacts/{absent[0]}", fix="`dvc pull` or `dvc checkout` it first")
    prefixes = [pointer.prefix for pointer in pointers.values() if pointer is not None]
    if not prefixes:
        raise MissingError("this checkout has no artifacts at all", fix="`dvc pull`, or run the stages: `rcg repro`")
    copied = data_copy(open_store(source), project.store, prefixes)
    return f"copied {len(copied)} run(s) to {project.store.uri}, {len(prefixes) - len(copied)} were there"


def committed(project: Project, name: str) -> CommittedRun:
    """The run that artifacts/<name>/ stands for. Raises: MissingError."""
    return project.workspace.parent(project.store, Need(check_name(name)))


def pull_data(name: str, folder: Path) -> str:
    """Fetch every file of a stage's artifact."""
    project = Project.here()
    paths = pull(project.store, committed(project, name), folder)
    return f"{len(paths)} file(s) of {name} in {folder}"


def register_bundle() -> str:
    """Register artifacts/bundle as `challenger`; says where to look."""
    project = Project.here()
    version = register_project(project)
    lines = [f"model      {version}"]
    for label, path in (
        ("pictures", "artifacts/sample/pictures/grid.png"),
        ("report", "artifacts/evaluate/report.html"),
        ("bundle", "artifacts/bundle"),
    ):
        if (project.root / path).exists():
            lines.append(f"{label:<10} {project.root / path}")
    return "\n".join(lines)


def register_project(project: Project) -> str:
    """Register the bundle of a checkout as `challenger`. Raises: ConfigError, RetryableError, ArtifactError."""
    from flows.registry import register

    if project.tracking is None:
        raise ConfigError("registering needs MLflow", got="RCG_MLFLOW_URI=off", fix="unset RCG_MLFLOW_URI")
    run = committed(project, "bundle")
    tags = git_state(project.root)
    _note_skipped(project, tags)
    lock = project.root / "dvc.lock"
    if lock.is_file():
        tags["dvc_lock"] = digest_of(lock.read_bytes())
    return register(project.tracking, project.store, run, name=project.settings.model_name, tags=tags)


def _note_skipped(project: Project, context: Mapping[str, str]) -> None:
    """Stages that DVC skipped never called us: the pipeline's parent run still gets its child for each."""
    for stage in project.stages.values():
        run = committed(project, stage.name)
        spec = read_spec(project.store, stage.name, run.fingerprint)
        if spec is not None:
            note(project.tracking, project.record(spec, context, reused=True), warn)


def _register_quietly(project: Project) -> None:
    """The bundle stage registers too, but an unreachable MLflow must not fail it."""
    from components.errors import RcgError

    if project.tracking is None:
        return
    try:
        register_project(project)
    except RcgError as error:
        warn(f"the bundle is not registered yet; `rcg register` does it later: {error}")
