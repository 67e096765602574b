"""Watching one RayJob to its end: its status decides, its events are shown, its pods say why it waits."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from components.errors import RcgError, StoreError
from components.store.base import Prefix, Store
from components.training.report import Report
from flows.executors.kuberay.cluster import Cluster, Object
from flows.executors.kuberay.failures import (
    LOG_LINES,
    Ending,
    Fault,
    cannot_start,
    deployment_status,
    ending_of,
    has_started,
    is_live,
    lost,
    no_room,
    refused,
)
from flows.executors.kuberay.patience import patiently
from flows.runs.events import read_events
from flows.runs.rayjobs import read_failure
from flows.runs.records import Spec


@dataclass(frozen=True)
class Pace:
    """How often things are looked at."""

    poll_s: float = 1.0
    pods_s: float = 5.0
    hopeless_s: float = 20.0
    """A container that cannot start is given up after so long: the pull was tried more than once then."""


@dataclass(frozen=True)
class Listener:
    """Who is told what a followed job does."""

    say: Callable[[str], None]
    on_report: Callable[[Report], None]


class Followed:
    """One RayJob that this process watches. It changes nothing, but for a job whose pods can never start."""

    def __init__(self, cluster: Cluster, job: Object, spec: Spec, store: Store, listener: Listener, pace: Pace) -> None:
        self.cluster, self.spec, self.store, self.listener, self.pace = cluster, spec, store, listener, pace
        self.name, self.uid = str(job["metadata"]["name"]), str(job["metadata"]["uid"])
        self.position = (0, 0)
        self.step = 0
        """The last step that its events tell of."""
        self._told: str | None = None
        self._seen: str | None = None
        self._fault: tuple[Fault, float] | None = None
        self._looked = -pace.pods_s

    def until_over(self, position: tuple[int, int]) -> Ending:
        """How it ended. Events beyond `position` are passed on."""
        self.position = position
        with _log_lines(self.cluster, self.name, self.spec.stage, self.listener.say):
            while True:
                job = patiently(lambda: self.cluster.job(self.name), self.listener.say)
                if job is None or job["metadata"]["uid"] != self.uid:
                    return Ending("stopped", "the RayJob was deleted")
                self._show_status(job)
                self._show_events()
                ended = self._ended(job) or self._hopeless(job)
                if ended is not None:
                    self._show_events()
                    return ended
                time.sleep(self.pace.poll_s)

    def _ended(self, job: Object) -> Ending | None:
        if deployment_status(job) == "Failed":
            self._look_at_pods(job, at_once=True)
        elif is_live(job):
            return None
        folder = Prefix(self.store, self.spec.prefix)
        failure = patiently(lambda: read_failure(folder, self.name), self.listener.say)
        return ending_of(job, failure, self._seen)

    def _hopeless(self, job: Object) -> Ending | None:
        """Ends a job that never started and whose pods cannot. Whoever refuses a pod says so at once and for good."""
        self._look_at_pods(job)
        if has_started(job) or self._fault is None:
            return None
        fault, since = self._fault
        if fault.about != "pod" and time.monotonic() - since < self.pace.hopeless_s:
            return None
        lines = self._last_lines(fault)
        patiently(lambda: self.cluster.delete_job(self.name, self.uid), self.listener.say)
        return Ending("permanent", "\n".join([fault.text, *lines]), fault.fix)

    def _last_lines(self, fault: Fault) -> list[str]:
        """What a container that ended said last."""
        if fault.about != "crash":
            return []
        try:
            return self.cluster.last_lines(fault.pod, fault.container, LOG_LINES)
        except RcgError:
            return []

    def _look_at_pods(self, job: Object, *, at_once: bool = False) -> None:
        """Keep what the pods say of why the job waits or failed; a look that fails is skipped."""
        now = time.monotonic()
        if now - self._looked < self.pace.pods_s and not at_once:
            return
        self._looked = now
        try:
            pods = self._pods(job)
            trouble, fault = lost(pods) or no_room(pods), cannot_start(pods)
            if trouble is None and not has_started(job):
                trouble = self._last_warning(job)
                fault = fault or refused(trouble or "")
        except RcgError:
            return
        if fault is None or self._fault is None or fault.about != self._fault[0].about:
            self._fault = None if fault is None else (fault, now)
        if fault is not None:
            trouble = fault.text
        if trouble is not None and trouble != self._seen:
            self.listener.say(f"{self.name}: {trouble}")
        self._seen = trouble or self._seen

    def _pods(self, job: Object) -> list[Object]:
        cluster = (job.get("status") or {}).get("rayClusterName")
        pods = self.cluster.pods({"ray.io/cluster": cluster}) if cluster else []
        return pods if has_started(job) else pods + self.cluster.pods({"job-name": self.name})

    def _last_warning(self, job: Object) -> str | None:
        """Pods that were refused, by a quota or a policy, exist in events only: of the cluster, or of the submitter."""
        cluster = (job.get("status") or {}).get("rayClusterName")
        makers = [cluster] if cluster and deployment_status(job) != "Running" else [self.name]
        messages = [message for maker in makers for message in self.cluster.warnings(maker)]
        return messages[-1] if messages else None

    def _show_status(self, job: Object) -> None:
        status = deployment_status(job)
        if status and status != self._told:
            self._told = status
            words = {"Initializing": "waiting for its pods", "Running": "running"}
            self.listener.say(f"{self.name}: {words.get(status, status)}")

    def _show_events(self) -> None:
        """News of the run; a store that does not answer is asked again at the next look."""
        with contextlib.suppress(StoreError):
            for event in read_events(self.store, self.spec.prefix, after=self.position):
                self.position, self.step = max(self.position, event.position), event.step
                self.listener.on_report(Report(event.step, event.metrics, {}, event.total_steps))


@contextlib.contextmanager
def _log_lines(cluster: Cluster, name: str, stage: str, say: Callable[[str], None]) -> Iterator[None]:
    """Passes on what the job prints, by a thread that may fail: the log is a convenience, status and store decide."""
    over = threading.Event()
    thread = threading.Thread(target=_follow_log, args=(cluster, name, stage, say, over), name="job log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LAST_LINES_S)


_RETRY_S = 3.0
_LAST_LINES_S = 3.0
_CONTAINER = "ray-job-submitter"


def _follow_log(cluster: Cluster, name: str, stage: str, say: Callable[[str], None], over: threading.Event) -> None:
    last = ""
    while not over.wait(_RETRY_S):
        with contextlib.suppress(Exception):
            for pod in cluster.pods({"job-name": name}):
                for line in cluster.log(pod["metadata"]["name"], _CONTAINER):
                    time_, _, text = line.partition(" ")
                    if time_ > last:
                        last = time_
                        if is_news(text, stage):
                            say(f"  {text}")


def is_news(line: str, stage: str) -> bool:
    """Neither progress, which is shown from the events, nor the talk of Ray's submitter."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
    progress = rf"{stage}: (started|done|already|\d)"
    ray = r"(\d{4}-\d\d-\d\d \S+\s+)?(INFO|SUCC)\b|.*\b(cli|sdk|job_manager)\.py:\d+ -- |Running entrypoint"
    false_alarm = r"\(raylet\) There are tasks with infeasible"  # of every job whose head has no CPUs; all tasks run
    return bool(text) and not re.match(f"{progress}|{ray}|{false_alarm}", text) and not set(text) <= set("-= ")
