"""Stages as RayJobs: attach to the one that is at work, or create the next attempt; follow it; judge its end."""

import contextlib
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from components.collection.packaged import PACKAGED
from components.errors import ArtifactError, ConfigError, ConflictError, RcgError, RetryableError
from components.store.base import Prefix, Store
from flows.executors.base import Launch, Launcher
from flows.executors.image import check_image
from flows.executors.kuberay.cluster import Cluster, Object
from flows.executors.kuberay.failures import Ending, deployment_status, is_live
from flows.executors.kuberay.follow import Followed, Listener, Pace
from flows.executors.kuberay.manifest import (
    STAGE,
    STORE,
    Order,
    attempt_of,
    build,
    is_same_work,
    read_template,
    store_key,
)
from flows.executors.kuberay.patience import patiently
from flows.executors.sigterm import on_sigterm
from flows.identity.artifact import SCHEMA
from flows.runs.events import last_event
from flows.runs.lease import newest_attempt
from flows.runs.rayjobs import JobRecord, note_job, noted_jobs, read_failure
from flows.runs.records import CommittedRun, Failure, Spec, load_run
from flows.settings import Settings, WorkerSettings

_PINNED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_FIRST_ANSWER_S = 20.0
_STORE_S = 600.0
_ROUNDS = 20


class KubeRay(Launcher):
    """Nothing from the workspace goes to the pods: they read the spec from the store, and their code is the image's."""

    def __init__(
        self, cluster: Callable[[], Cluster], settings: Settings, root: Path, say: Callable[[str], None], pace: Pace
    ) -> None:
        self.settings, self.root, self.say, self.pace = settings, root, say, pace
        self._open = cluster

    def check(self, spec: Spec, settings: WorkerSettings) -> None:  # noqa: ARG002  (self.settings has more)
        """Not the params: params.yaml was checked when the spec was made, and once more would import torch."""
        _check_settings(self.settings, spec)
        check_image(spec, self.settings.cluster.image, self.root)
        self._open()
        build(read_template(self.settings.cluster.rayjob_template), Order(spec, self.settings.store, 1), self.settings)

    def launch(self, launch: Launch) -> CommittedRun:
        return _Launched(self, self._open(), launch).run()


def _check_settings(settings: Settings, spec: Spec) -> None:
    """Raises: ConfigError for a place that pods cannot see, or an image that may change."""
    if not settings.cluster.image:
        raise ConfigError("kuberay needs an image", fix="`make image`, then set RCG_IMAGE to what it prints")
    if not settings.cluster.image_by_tag and not _PINNED.fullmatch(settings.cluster.image):
        raise ConfigError(
            "the image is not pinned, so attempts at one stage might run different code",
            got=settings.cluster.image,
            expected="name@sha256:digest",
            fix="set RCG_IMAGE to what `make image` prints, or RCG_IMAGE_BY_TAG=true",
        )
    if settings.worker.device == "cuda" and not settings.worker.gpus_per_worker:
        raise ConfigError("the pods would have no GPU", got="RCG_DEVICE=cuda", fix="set RCG_GPUS_PER_WORKER=1")
    for name, place in (("store", settings.store), ("source", spec.source)):
        if place not in PACKAGED and not _seen_by_pods(place, settings.cluster.shared_folder):
            raise ConfigError(
                f"pods cannot see this {name}",
                got=place,
                expected="s3://bucket/prefix",
                fix=f"set RCG_{name.upper()}, or RCG_SHARED_FOLDER for a folder that the RayJob template mounts",
            )


def _seen_by_pods(place: str, shared: Path | None) -> bool:
    if place.startswith("s3://"):
        return True
    return shared is not None and Path(place.removeprefix("file://")).absolute().is_relative_to(shared)


class _Launched:
    """One driver's way to a run that pods commit."""

    def __init__(self, executor: KubeRay, cluster: Cluster, launch: Launch) -> None:
        self.executor, self.cluster, self.asked = executor, cluster, launch
        self.spec, self.store, self.say = launch.spec, launch.store, executor.say
        self.folder = Prefix(launch.store, launch.spec.prefix)
        self.position, self.best_step, self.n_lost = (0, 0), 0, 0

    def run(self) -> CommittedRun:
        newest = last_event(self.store, self.spec.prefix)
        if newest is not None:
            self.position, self.best_step = newest.position, newest.step
        while True:
            job = self._attach() or self._create()
            with self._left_alone(job):
                followed = self._follow(job)
                run = self._judged(followed)
            if run is not None:
                return run

    def _attach(self) -> Object | None:
        """The job that is at work on this run, if there is one."""
        live = [job for job in self._jobs() if is_live(job) and is_same_work(job, self._order(0))]
        if not live:
            return None
        job = max(live, key=lambda job: attempt_of(job["metadata"]["name"]))
        self.say(f"{self.spec.stage}: attached to RayJob {job['metadata']['name']}")
        return job

    def _order(self, attempt: int) -> Order:
        return Order(self.spec, self.store.uri, attempt)

    def _create(self) -> Object:
        """The next attempt; when another driver creates it at the same time, there is one job all the same.

        No name is used twice: a job must not be judged by the failure that an earlier one of its name left.
        """
        self.store.put(f"{self.spec.prefix}/spec.json", self.spec.to_json())
        template = read_template(self.executor.settings.cluster.rayjob_template)
        for _ in range(_ROUNDS):
            number = newest_attempt(self.folder)  # before the jobs: one that raised it is then among them
            names = noted_jobs(self.folder) | {job["metadata"]["name"] for job in self._jobs()}
            order = self._order(1 + max(number, *map(attempt_of, names), 0))
            job = self._created(order, build(template, order, self.executor.settings))
            if job is not None:
                return job
        raise RetryableError("other drivers create and delete RayJobs of this run all the time", got=order.name)

    def _jobs(self) -> list[Object]:
        """Every RayJob of this run in this store, finished ones too."""
        return patiently(lambda: self.cluster.jobs(self._order(0).labels), self.say, limit_s=_FIRST_ANSWER_S)

    def _created(self, order: Order, manifest: Object) -> Object | None:
        """The job of that name, if it is new or at work. Raises: ConfigError when it is about something else."""
        try:
            job = patiently(lambda: self.cluster.create_job(manifest), self.say, limit_s=_FIRST_ANSWER_S)
        except ConflictError:
            other = patiently(lambda: self.cluster.job(order.name), self.say)
            if other is not None and not is_same_work(other, order):
                raise _collision(order, other) from None
            if other is None or not is_live(other):
                return None
            self.say(f"{self.spec.stage}: attached to RayJob {order.name}")
            return other
        self.say(f"{self.spec.stage}: created RayJob {order.name} in namespace {self.cluster.namespace}")
        return job

    def _follow(self, job: Object) -> tuple[Followed, Ending]:
        record = JobRecord(
            schema_version=SCHEMA,
            name=job["metadata"]["name"],
            uid=job["metadata"]["uid"],
            namespace=self.cluster.namespace,
            image=self.executor.settings.cluster.image,
            context=dict(self.asked.context),
        )
        patiently(lambda: note_job(self.folder, record), self.say)
        listener = Listener(self.say, self.asked.on_report)
        followed = Followed(self.cluster, job, self.spec, self.store, listener, self.executor.pace)
        return followed, followed.until_over(self.position)

    def _judged(self, ended: tuple[Followed, Ending]) -> CommittedRun | None:
        """The committed run; None when another attempt is worth it. Raises: what this end means."""
        followed, ending = ended
        self.position = followed.position
        if ending.kind == "succeeded":
            return self._committed(followed.name)
        if ending.kind != "transient":
            raise _error(ending, followed.name, patiently(lambda: read_failure(self.folder, followed.name), self.say))
        self.n_lost = 1 if followed.step > self.best_step else self.n_lost + 1
        self.best_step = max(self.best_step, followed.step)
        if self.n_lost >= self.executor.settings.cluster.attempts:
            raise RetryableError(
                f"{self.n_lost} RayJobs in a row were lost",
                got=f"{followed.name}: {ending.message}",
                fix="run the same command again: it continues from the checkpoint",
            )
        self.say(f"{followed.name} was lost, the next attempt goes on from its checkpoint: {ending.message}")
        return None

    def _committed(self, name: str) -> CommittedRun:
        run = patiently(lambda: load_run(self.store, self.spec.prefix), self.say, limit_s=_STORE_S)
        if run is None:
            what = f"RayJob {name} ended well but committed nothing"
            raise ArtifactError(what, expected=f"manifest.json in {self.folder.uri}", fix="is it the same store?")
        return run

    @contextlib.contextmanager
    def _left_alone(self, job: Object) -> Iterator[None]:
        """The job outlives this process; somebody who ends it is told how to come back, and how to end the job."""
        with on_sigterm():  # an exception, so that what has to be said at the end is said
            try:
                yield
            except (KeyboardInterrupt, SystemExit):
                self.say(
                    f"{job['metadata']['name']} goes on in the cluster. To follow it again: the same command. "
                    f"To end it: rcg cancel {self.spec.stage}"
                )
                raise


def _error(ending: Ending, name: str, failure: Failure | None) -> RcgError:
    """What a job's end means to the person who asked for the stage."""
    match ending.kind:
        case "permanent" if failure is not None:
            return failure.error(f"RayJob {name} failed")
        case "permanent":
            fix = ending.fix or "mend it, then run again"
            return ConfigError(f"RayJob {name} cannot run", got=ending.message, fix=fix)
        case "capacity":
            fix = "free or add nodes, ask for less (RCG_WORKERS, RCG_WORKER_CPUS, …), or wait longer"
            return RetryableError(f"the cluster had no room for RayJob {name}", got=ending.message, fix=fix)
        case "budget":
            fix = "raise RCG_ACTIVE_DEADLINE_S; the same command continues from the checkpoint"
            return RetryableError(f"RayJob {name} ran out of its time", got=ending.message, fix=fix)
    fix = "the same command starts another attempt, from the checkpoint"
    return RetryableError(f"RayJob {name} is no more: {ending.message}", fix=fix)


def _collision(order: Order, other: Object) -> ConfigError:
    return ConfigError(
        f"a RayJob named {order.name} exists and is about something else",
        got=other["metadata"].get("annotations"),
        expected=order.annotations,
        fix="use another namespace (RCG_KUBE_NAMESPACE), or delete that RayJob",
    )


def cancel(cluster: Cluster, store: Store, stages: list[str]) -> list[str]:
    """Delete the live RayJobs of those stages in this store, with their pods; says what it did."""
    lines = []
    for job in _live(cluster, store):
        metadata = job["metadata"]
        if metadata["labels"][STAGE] in stages:
            cluster.delete_job(metadata["name"], metadata["uid"])
            status = deployment_status(job) or "new"
            lines.append(f"{metadata['labels'][STAGE]}: deleted RayJob {metadata['name']} ({status})")
    return lines


def ended_jobs(cluster: Cluster, store: Store, before: datetime) -> list[Object]:
    """RayJobs of this store that ended earlier than that. KubeRay keeps them, and their submitters' logs, for good."""
    ended = [(job, job.get("status", {}).get("endTime")) for job in _jobs_of(cluster, store) if not is_live(job)]
    return [job for job, time in ended if time is not None and datetime.fromisoformat(time) < before]


def live_jobs(cluster: Cluster, store: Store) -> list[tuple[str, str]]:
    """(name, status) of the RayJobs that are at work on runs of this store."""
    return [(job["metadata"]["name"], deployment_status(job)) for job in _live(cluster, store)]


def _live(cluster: Cluster, store: Store) -> list[Object]:
    return [job for job in _jobs_of(cluster, store) if is_live(job)]


def _jobs_of(cluster: Cluster, store: Store) -> list[Object]:
    return cluster.jobs({STORE: store_key(store.uri)})
