"""Doing a stage: look up, follow, take over or resume, execute, commit, publish. Never the same work twice."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from components.errors import (
    ArtifactError,
    ConfigError,
    FailureClass,
    MissingError,
    RcgError,
    RetryableError,
    SupersededError,
)
from components.store.base import Prefix, Store
from components.training.report import Report
from flows.executors.base import Attempt, Executor, Launch, Launcher, RankResult, Reporter, merge
from flows.identity.artifact import SCHEMA, digest_of
from flows.identity.environment import library_versions
from flows.identity.fingerprint import LOCK, identify
from flows.pipeline.table import Stage
from flows.runs.events import Event, read_events
from flows.runs.lease import FencedStore, Lease, LeaseRecord, Watch, acquire, failure_name, newest_attempt
from flows.runs.process import Process
from flows.runs.records import (
    Adoption,
    CommittedRun,
    Failure,
    InputSpec,
    RunRecord,
    Spec,
    commit,
    find_run,
    read_record,
    restore_record,
    reusable_run,
)
from flows.runs.workspace import Workspace
from flows.settings import WorkerSettings

INIT = "init"
"""Key of a stage's params that names a finished run of the same stage, which then is an input of that name."""
How = Literal["reused", "followed", "made"]
EndStatus = Literal["FINISHED", "FAILED", "KILLED"]


class Log(Reporter, Protocol):
    """A reporter that also hears how the attempt ended."""

    def end(self, status: EndStatus) -> None: ...


@dataclass(frozen=True)
class Logs:
    """Several logs as one."""

    logs: Sequence[Log]

    def on_report(self, report: Report) -> None:
        for log in self.logs:
            log.on_report(report)

    def end(self, status: EndStatus) -> None:
        for log in self.logs:
            log.end(status)


class Display(Protocol):
    """Shows a person what goes on: a stage that runs here, or another process that is followed."""

    def stage(self, stage: str, attempt: int) -> Log: ...
    def follow(self, lease: LeaseRecord) -> None: ...
    def event(self, event: Event) -> None: ...


@dataclass(frozen=True)
class Timing:
    """How often this process shows that it lives, and looks whether others do."""

    heartbeat_s: float = 10.0
    poll_s: float = 1.0


@dataclass(frozen=True)
class Doing:
    """Where and how fast a run is made, and who hears of it; none of it changes the result."""

    store: Store
    executor: Executor | Launcher
    settings: WorkerSettings = field(default_factory=WorkerSettings)
    timing: Timing = field(default_factory=Timing)
    context: Mapping[str, str] = field(default_factory=dict)
    """git commit, image, RayJob: recorded in run.json."""
    open_log: Callable[[Spec, int], Log] | None = None
    """Called once per attempt of this process, with its number."""
    on_follow: Callable[[LeaseRecord], None] | None = None
    """Called when another process turns out to hold the lease."""
    on_event: Callable[[Event], None] | None = None
    """Called for each event of another process that is followed."""


@dataclass(frozen=True)
class Outcome:
    """What a stage came to. reused: it was there; followed: another process made it meanwhile; made: this one did."""

    run: CommittedRun
    how: How


def make_spec(
    stage: Stage, params: Mapping[str, Any], store: Store, workspace: Path, *, source: str, lock: str | None = None
) -> Spec:
    """The work that a stage asks for, after checking that its parents are in the store.

    `lock` is the text of collection.lock, for a stage without parents.
    Raises: MissingError, TamperedError for a parent.
    """
    parents = {need.stage: Workspace(workspace).parent(store, need) for need in stage.needs}
    inputs = {}
    for need in stage.needs:
        run = parents[need.stage]
        if need.file is None:
            inputs[need.stage] = run.digest
        elif need.file in run.manifest.files:
            inputs[f"{need.stage}/{need.file}"] = run.manifest.files[need.file].sha256
        else:
            raise ArtifactError(f"the {need.stage} artifact has no {need.file}", got=run.prefix)
    if not stage.needs:
        if lock is None:
            raise ConfigError(f"{stage.name} needs a {LOCK}", fix="list your pictures: rcg snapshot")
        inputs[LOCK] = digest_of(lock.encode())
    if params.get(INIT):
        parents[INIT] = _started_from(stage, params[INIT], store)
        inputs[INIT] = parents[INIT].digest
    identity = identify(stage.name, stage.module, params, inputs)
    return Spec(
        schema_version=SCHEMA,
        fingerprint=identity.fingerprint,
        identity=identity,
        inputs={name: InputSpec(prefix=run.prefix, digest=run.digest) for name, run in parents.items()},
        source=source,
        collection_lock=None if stage.needs else lock,
        module=stage.module,
    )


def _started_from(stage: Stage, init: str, store: Store) -> CommittedRun:
    """The run of the same stage whose weights this one starts from."""
    digest = init.removeprefix("sha256:")
    run = find_run(store, stage.name, digest)
    if run is None:
        raise MissingError(
            f"{stage.name}.init names a run that is not in the store",
            got=f"content {digest[:10]} in {store.uri}",
            fix=f"`rcg data copy --from` the store that has it, or set {stage.name}.init: null",
        )
    return run


def run_and_publish(stage: Stage, spec: Spec, workspace: Path, doing: Doing) -> Outcome:
    """Do the work or find it done, and show it in artifacts/<stage>/."""
    outcome = work(spec, doing)
    Workspace(workspace).publish(doing.store, outcome.run, stage)
    return outcome


def work(spec: Spec, doing: Doing) -> Outcome:
    """Do the work or find it done, in the store alone. Any number of processes may call it for one spec at once.

    Raises: what the executor raises; SupersededError when another process took over; the error of a process that was
    followed and failed for good.
    """
    run = reusable_run(doing.store, spec.prefix)
    if run is not None:
        restore_record(doing.store, run)
        return Outcome(run, "reused")
    doing.executor.check(spec, doing.settings)
    if isinstance(doing.executor, Launcher):
        return _launched(spec, doing, doing.executor)
    return _Work(spec, doing, doing.executor).done()


def _launched(spec: Spec, doing: Doing, launcher: Launcher) -> Outcome:
    """Have the work done by a process elsewhere, which holds the lease; this one only tells of it."""
    attempt = max(1, newest_attempt(Prefix(doing.store, spec.prefix)))
    log = None if doing.open_log is None else doing.open_log(spec, attempt)
    status: EndStatus = "KILLED"
    try:
        run = launcher.launch(Launch(spec, doing.store, doing.context, _no_report if log is None else log.on_report))
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        if log is not None:
            log.end(status)
    return Outcome(run, "made")


def _no_report(_report: Report) -> None: ...


class _Work:
    """One process's way to a committed run."""

    def __init__(self, spec: Spec, doing: Doing, executor: Executor) -> None:
        self.spec, self.doing, self.executor = spec, doing, executor
        self.folder = Prefix(doing.store, spec.prefix)
        self.watch = Watch()
        self.followed = 0
        self.seen = (0, 0)

    def done(self) -> Outcome:
        while True:
            run = reusable_run(self.doing.store, self.spec.prefix)
            if run is not None:
                self._show_events()
                return Outcome(run, "followed" if self.followed else "reused")
            interval_s = self.doing.timing.heartbeat_s
            claim = acquire(self.folder, interval_s=interval_s, watch=self.watch, on_failed=self._end_with)
            if isinstance(claim, Lease):
                with claim:
                    return self._execute(claim)
            self._follow(claim)

    def _follow(self, holder: LeaseRecord) -> None:
        if self.followed != holder.attempt:
            self.followed = holder.attempt
            self.seen = max(self.seen, (holder.attempt, 0))
            if self.doing.on_follow is not None:
                self.doing.on_follow(holder)
        self._show_events()
        time.sleep(self.doing.timing.poll_s)

    def _show_events(self) -> None:
        if not self.followed or self.doing.on_event is None:
            return
        for event in read_events(self.doing.store, self.spec.prefix, after=self.seen):
            self.seen = max(self.seen, event.position)
            self.doing.on_event(event)

    def _end_with(self, attempt: int) -> None:
        """Raise the failure of the attempt that this process followed, unless it is transient: the work goes on then.

        An attempt that had failed before this process came is none of its own: somebody may have mended the cause.
        """
        if attempt == self.followed:
            failure = read_record(Failure, self.folder, failure_name(attempt))
            if failure is not None and failure.failure_class != "transient":
                raise failure.error("the process that was followed failed")

    def _execute(self, lease: Lease) -> Outcome:
        run = reusable_run(self.doing.store, self.spec.prefix)
        if run is not None:  # committed between the look-up and the lease
            return Outcome(run, "followed" if self.followed else "reused")
        store = FencedStore(self.doing.store, lease.check)
        log = None if self.doing.open_log is None else self.doing.open_log(self.spec, lease.attempt)
        status: EndStatus = "KILLED"
        try:
            run = self._attempt(store, lease.attempt, log)
            status = "FINISHED"
        except Exception as error:
            status = "FAILED"
            self._record_failure(store, lease.attempt, error)
            raise
        finally:
            if log is not None:
                log.end(status)
        return Outcome(run, "made")

    def _attempt(self, store: Store, attempt: int, log: Log | None) -> CommittedRun:
        spec, doing = self.spec, self.doing
        store.put(f"{spec.prefix}/spec.json", spec.to_json())
        started_ms = _now_ms()
        results = self.executor.run(Attempt(spec, doing.store.uri, attempt, doing.settings, log))
        files, keys = merge(results)

        def record(digest: str) -> RunRecord:
            return self._record(digest, attempt, keys, results, started_ms)

        return commit(store, spec.prefix, files, record)

    def _record(
        self, digest: str, attempt: int, keys: dict[str, str], results: list[RankResult], started_ms: int
    ) -> RunRecord:
        adoption = read_record(Adoption, self.folder, "adopted.json")  # it went on from another run's checkpoint
        return RunRecord(
            schema_version=SCHEMA,
            stage=self.spec.stage,
            fingerprint=self.spec.fingerprint,
            digest=digest,
            attempt=attempt,
            keys=keys,
            world_size=len(results),
            device=results[0].device,
            versions=library_versions(),
            host=Process.current().host,
            context={**self.doing.context, **self._numerics(results[0])},
            started_ms=started_ms,
            ended_ms=_now_ms(),
            adopted_from=None if adoption is None else adoption.source,
            adopted_because=None if adoption is None else adoption.reason,
        )

    def _numerics(self, result: RankResult) -> dict[str, str]:
        """What may have moved low-order bits besides world size, device and versions."""
        threads = {"threads": f"{result.threads}"} if result.device == "cpu" else {}
        settings = self.doing.settings
        micro_batch = {"micro_batch": f"{settings.micro_batch}"} if settings.micro_batch else {}
        sharded = {"sharded": "true"} if settings.shard else {}
        return threads | ({"compiled": "true"} if settings.compile else {}) | micro_batch | sharded

    def _record_failure(self, store: Store, attempt: int, error: Exception) -> None:
        """For followers and `rcg status`. A writer that was superseded has nothing to say any more."""
        if isinstance(error, SupersededError):
            return
        failure = Failure(schema_version=SCHEMA, failure_class=failure_class(error), message=f"{error}" or repr(error))
        with contextlib.suppress(RetryableError):  # the store may be what failed
            store.put(f"{self.spec.prefix}/{failure_name(attempt)}", failure.to_json())


def failure_class(error: Exception) -> FailureClass:
    """Whether the same command may succeed later (transient), or what must be mended first."""
    if isinstance(error, RcgError):
        return error.failure_class
    return "transient" if isinstance(error, OSError | MemoryError) else "code"


def _now_ms() -> int:
    return time.time_ns() // 10**6
