"""The driver's side of a RayJob against a Kubernetes in memory and a real store; a thread plays the pod."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.errors import ArtifactError, ConfigError, DataError, RcgError, RetryableError, StoreError
from components.store import LocalStore
from components.store.base import Prefix
from components.training.report import Report
from flows.execution.work import Doing, failure_class, work
from flows.executors import open_executor
from flows.executors.base import Launch
from flows.executors.kuberay import KubeRay, cancel, ended_jobs, live_jobs, missing_rights, patience
from flows.executors.kuberay.cluster import AccessError, Object, UnreachableError
from flows.executors.kuberay.follow import Pace, is_news
from flows.runs.rayjobs import note_failure
from flows.runs.records import load_run
from flows.settings import Settings, WorkerSettings
from tests.support.rayjobs import IMAGE, MemoryCluster, set_status, spec

ROOT = Path(__file__).parents[4]
Act = Callable[[Object], None]


class Rig:
    """A driver with everything around it."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root, self.cluster = root, MemoryCluster()
        (root / "source").mkdir(parents=True, exist_ok=True)
        self.spec = spec(rows=3).model_copy(update={"source": str(root / "source")})
        self.store = LocalStore(root / "store")
        values = {"executor": "kuberay", "image": IMAGE, "store": self.store.uri, "shared_folder": root}
        self.settings = Settings.model_validate(values | settings)
        self.lines: list[str] = []
        self.reports: list[Report] = []
        pace = Pace(poll_s=0.001, pods_s=0.0, hopeless_s=0.0)
        self.driver = KubeRay(lambda: self.cluster, self.settings, root, self.lines.append, pace)

    @property
    def folder(self) -> Prefix:
        return Prefix(self.store, self.spec.prefix)

    def run(self, *acts: Act) -> Any:
        """Launch; each look at a job makes the next act happen, and the last one again and again."""
        left = list(acts)

        def next_act(job: Object) -> None:
            (left.pop(0) if len(left) > 1 else left[0])(job)

        self.cluster.on_get = next_act
        self.driver.check(self.spec, WorkerSettings())
        return self.driver.launch(Launch(self.spec, self.store, {"git_commit": "abc"}, self.reports.append))

    def pod_works(self, _job: Object | None = None) -> None:
        """What `rcg job` does in the pod."""
        work(self.spec, Doing(LocalStore(self.store.root), open_executor("inline"), WorkerSettings(device="cpu")))

    def succeeds(self, job: Object) -> None:
        self.pod_works()
        set_status(job, "Complete", "SUCCEEDED")


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(patience, "_FIRST_S", 0.001)
    monkeypatch.setattr(patience, "_LONGEST_S", 0.002)
    return Rig(tmp_path)


def running(job: Object) -> None:
    set_status(job, "Running", "RUNNING")


def failing(reason: str, message: str = "exit code 1") -> Act:
    return lambda job: set_status(job, "Failed", "FAILED", reason=reason, message=message)


def test_a_run_is_one_job_that_pods_commit_and_the_driver_reads(rig: Rig) -> None:
    run = rig.run(lambda job: set_status(job, "Initializing"), running, rig.succeeds)
    assert run.digest == load_run(rig.store, rig.spec.prefix).digest
    [name] = rig.cluster.created
    assert json.loads(rig.folder.get("spec.json"))["fingerprint"] == rig.spec.fingerprint
    noted = json.loads(rig.folder.get(f"jobs/{name}.json"))
    assert (noted["uid"], noted["image"], noted["context"]) == ("uid-1", IMAGE, {"git_commit": "abc"})
    assert rig.lines == [
        f"parts: created RayJob {name} in namespace rcg-jobs",
        f"{name}: waiting for its pods",
        f"{name}: running",
        f"{name}: Complete",
    ]


def test_the_command_again_attaches_to_the_job_at_work(rig: Rig) -> None:
    def dies(_job: Object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rig.run(running, dies)
    assert "To end it: rcg cancel parts" in rig.lines[-1]
    rig.run(running, rig.succeeds)
    assert len(rig.cluster.created) == 1
    assert rig.cluster.deleted == []
    assert any("attached to RayJob" in line for line in rig.lines)


def test_sigterm_leaves_the_job_and_says_how_to_come_back(rig: Rig) -> None:
    with pytest.raises(SystemExit) as caught:
        rig.run(running, lambda _job: os.kill(os.getpid(), signal.SIGTERM))
    assert caught.value.code == 143
    assert "goes on in the cluster" in rig.lines[-1]
    assert rig.cluster.deleted == []


def test_of_two_drivers_that_create_at_once_one_attaches(rig: Rig) -> None:
    other, jobs = Rig(rig.root), rig.cluster.jobs
    other.cluster.on_get = rig.succeeds

    def jobs_then_the_other(labels: dict[str, str]) -> list[Object]:
        found = jobs(labels)
        if len(found_twice) == 1 and not rig.cluster.kept:
            rig.cluster.create_job(manifest())
        found_twice.append(found)
        return found

    def manifest() -> Object:
        from flows.executors.kuberay.manifest import Order, build, read_template

        return build(read_template(None), Order(rig.spec, rig.store.uri, 1), rig.settings)

    found_twice: list[Any] = []
    rig.cluster.jobs = jobs_then_the_other  # type: ignore[method-assign]
    rig.run(running, rig.succeeds)
    assert len(rig.cluster.created) == 1
    assert rig.lines[0].startswith("parts: attached")


def test_a_name_taken_by_other_work_is_named_and_left_alone(rig: Rig) -> None:
    rig.run(rig.succeeds)
    [name] = rig.cluster.created
    fresh = Rig(rig.root / "fresh", store=rig.store.uri, shared_folder=rig.root)
    fresh.cluster.kept[name] = rig.cluster.kept[name]
    fresh.cluster.kept[name]["metadata"]["labels"] = {}
    fresh.cluster.kept[name]["metadata"]["annotations"] = {"rcg/fingerprint": "another"}
    shutil.rmtree(rig.store.root / rig.spec.prefix)
    fresh.store = rig.store
    with pytest.raises(ConfigError, match="is about something else"):
        fresh.run(running)
    assert fresh.cluster.deleted == []


def test_a_lost_job_is_followed_by_the_next_attempt(rig: Rig) -> None:
    run = rig.run(running, failing("AppFailed", "the head is gone"), running, rig.succeeds)
    assert run is not None
    assert [name.rpartition("-")[2] for name in rig.cluster.created] == ["a1", "a2"]
    assert any("was lost" in line and "the head is gone" in line for line in rig.lines)


def test_jobs_that_are_lost_without_progress_are_not_made_for_ever(rig: Rig) -> None:
    with pytest.raises(RetryableError, match="3 RayJobs in a row were lost") as caught:
        rig.run(failing("AppFailed", "no reason"))
    assert "no reason" in str(caught.value)
    assert len(rig.cluster.created) == 3
    with pytest.raises(RetryableError, match="in a row"):
        rig.run(failing("AppFailed"))
    assert rig.cluster.created[-1].endswith("-a6")  # numbers go on


def test_progress_renews_the_patience_with_lost_jobs(rig: Rig) -> None:
    n = 0

    def a_little_further(job: Object) -> None:
        nonlocal n
        n += 1
        line = {"step": n, "total_steps": 9, "time_ms": 0, "metrics": {"loss": 1.0}, "images": {}}
        rig.folder.put(f"events/{n}/000001.jsonl", json.dumps(line).encode())
        if n == 6:
            rig.succeeds(job)
        else:
            failing("AppFailed")(job)

    rig.run(a_little_further)
    assert len(rig.cluster.created) == 6
    assert [report.step for report in rig.reports][:6] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("error", [ConfigError("x"), DataError("picture 3 is damaged"), RcgError("y"), KeyError("z")])
def test_a_failure_that_would_come_again_is_told_and_not_retried(rig: Rig, error: Exception) -> None:
    def fails(job: Object) -> None:
        note_failure(rig.folder, job["metadata"]["name"], failure_class(error), str(error))
        failing("AppFailed")(job)

    with pytest.raises(RcgError) as caught:
        rig.run(running, fails)
    assert str(error) in str(caught.value)
    assert len(rig.cluster.created) == 1
    expected = {"config": 2, "data": 3, "code": 3}[failure_class(error)]
    assert caught.value.exit_code == expected


def test_a_lost_job_has_no_failure_of_an_earlier_job_that_is_gone(rig: Rig) -> None:
    def refuses_the_code(job: Object) -> None:  # before it takes the lease, so no attempt is on record
        note_failure(rig.folder, job["metadata"]["name"], "config", "the image holds other code")
        failing("AppFailed")(job)

    with pytest.raises(ConfigError, match="other code"):
        rig.run(running, refuses_the_code)
    rig.cluster.kept.clear()
    rig.run(running, failing("AppFailed", "the node is gone"), running, rig.succeeds)
    assert [name.rpartition("-")[2] for name in rig.cluster.created] == ["a1", "a2", "a3"]


def test_a_failure_that_may_pass_is_retried(rig: Rig) -> None:
    def fails(job: Object) -> None:
        error = StoreError("the store did not answer")
        note_failure(rig.folder, job["metadata"]["name"], failure_class(error), str(error))
        failing("AppFailed")(job)

    rig.run(running, fails, running, rig.succeeds)
    assert len(rig.cluster.created) == 2


@pytest.mark.parametrize(
    ("act", "kind", "words"),
    [
        (failing("PreRunningDeadlineExceeded"), RetryableError, "no room"),
        (failing("DeadlineExceeded"), RetryableError, "ran out of its time"),
        (lambda job: set_status(job, "ValidationFailed", reason="BadSpec"), ConfigError, "BadSpec"),
        (lambda job: set_status(job, "Complete", "STOPPED"), RetryableError, "stopped"),
        (lambda job: set_status(job, "Complete", "SUCCEEDED"), ArtifactError, "committed nothing"),
    ],
)
def test_ends_that_are_not_retried(rig: Rig, act: Act, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        rig.run(running, act)
    assert len(rig.cluster.created) == 1
    assert rig.cluster.deleted == []


def test_a_job_that_somebody_deleted_is_not_made_again(rig: Rig) -> None:
    with pytest.raises(RetryableError, match="deleted"):
        rig.run(running, lambda _job: rig.cluster.kept.clear())
    assert len(rig.cluster.created) == 1


def test_what_the_scheduler_said_is_the_reason_for_no_room(rig: Rig) -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    worker = {"name": "w", "labels": {"ray.io/node-type": "worker"}}
    rig.cluster.pods_now = [{"metadata": worker, "status": {"conditions": [condition]}}]
    with pytest.raises(RetryableError, match="Insufficient nvidia") as caught:
        rig.run(lambda job: set_status(job, "Initializing"), failing("PreRunningDeadlineExceeded", "too long"))
    assert caught.value.exit_code == 75


def waiting(reason: str, message: str) -> list[Object]:
    state = {"waiting": {"reason": reason, "message": message}}
    return [
        {
            "metadata": {"name": "p"},
            "status": {"containerStatuses": [{"name": "ray-head", "image": "localhost/none:1", "state": state}]},
        }
    ]


@pytest.mark.parametrize(
    ("pods", "words"),
    [
        (waiting("ImagePullBackOff", "not found"), "image cannot be pulled: localhost/none:1"),
        (waiting("CreateContainerConfigError", 'secret "keys" not found'), 'secret "keys" not found'),
    ],
)
def test_a_job_whose_containers_cannot_start_is_ended(rig: Rig, pods: list[Object], words: str) -> None:
    rig.cluster.pods_now = pods
    with pytest.raises(ConfigError, match=words):
        rig.run(lambda job: set_status(job, "Initializing"))
    assert rig.cluster.deleted == rig.cluster.created
    assert len(rig.cluster.created) == 1


def test_a_ray_that_never_starts_ends_the_job_with_its_last_lines(rig: Rig) -> None:
    [crashed] = waiting("CrashLoopBackOff", "back-off 20s")
    crashed["status"]["containerStatuses"][0] |= {
        "restartCount": 2,
        "lastState": {"terminated": {"reason": "Error", "exitCode": 127}},
    }
    rig.cluster.pods_now = [crashed]
    rig.cluster.lines_now = {("p", "ray-head"): ["ulimit", "/bin/bash: line 1: ray: command not found"]}
    with pytest.raises(ConfigError, match="exit code 127") as caught:
        rig.run(lambda job: set_status(job, "Initializing"))
    assert "ray: command not found" in str(caught.value)
    assert rig.cluster.deleted == rig.cluster.created
    assert len(rig.cluster.created) == 1


def test_a_quota_that_wants_limits_is_refused_at_once_with_the_fix(rig: Rig) -> None:
    rig.driver.pace = Pace(poll_s=0.001, pods_s=0.0, hopeless_s=60.0)
    rig.cluster.events_now = ['pods "h" is forbidden: failed quota: team: must specify limits.cpu for: ray-head']
    with pytest.raises(ConfigError, match="must specify limits") as caught:
        rig.run(lambda job: set_status(job, "Initializing"))
    assert "RCG_CPU_LIMITS=true" in str(caught.value)


def test_a_submitter_that_is_refused_ends_a_job_whose_cluster_runs(rig: Rig) -> None:
    rig.cluster.events_now = ['Error creating: pods "h" is forbidden: violates PodSecurity "restricted:latest"']
    with pytest.raises(ConfigError, match="violates PodSecurity"):
        rig.run(lambda job: set_status(job, "Running", ""))


def test_a_container_that_cannot_start_again_in_a_running_job_ends_nothing(rig: Rig) -> None:
    rig.cluster.pods_now = waiting("ImagePullBackOff", "too many requests")
    rig.run(running, running, rig.succeeds)
    assert rig.cluster.deleted == []


def test_pods_that_were_refused_are_told_by_events(rig: Rig) -> None:
    rig.cluster.events_now = ["pods is forbidden: exceeded quota: rcg"]
    with pytest.raises(RetryableError, match="exceeded quota"):
        rig.run(lambda job: set_status(job, "Initializing"), failing("PreRunningDeadlineExceeded"))


@pytest.mark.parametrize("error", [UnreachableError("the API server does not answer"), AccessError("who are you?")])
def test_a_server_that_is_away_changes_nothing(rig: Rig, error: Exception) -> None:
    looks = 0

    def away(verb: str) -> None:
        nonlocal looks
        looks += verb == "get"
        if verb in ("get", "pods") and 2 <= looks < 30:
            raise error

    rig.cluster.fail = away
    rig.run(running, rig.succeeds)
    assert len(rig.cluster.created) == 1
    assert rig.cluster.deleted == []
    assert sum(str(error).splitlines()[0] in line for line in rig.lines) == 1
    assert any("an answer again" in line for line in rig.lines)


def test_a_server_that_was_never_there_is_an_error(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_verb: str) -> None:
        raise UnreachableError("the Kubernetes API server does not answer")

    monkeypatch.setattr("flows.executors.kuberay.launch._FIRST_ANSWER_S", 0.05)
    rig.cluster.fail = away
    with pytest.raises(UnreachableError):
        rig.run(running)


def test_cancel_deletes_live_jobs_of_the_stage_in_this_store_only(rig: Rig) -> None:
    rig.run(failing("AppFailed"), rig.succeeds)
    assert cancel(rig.cluster, rig.store, ["parts"]) == []
    live, elsewhere = (json.loads(json.dumps(rig.cluster.kept[name])) for name in rig.cluster.created)
    for job, name, store in ((live, "live", None), (elsewhere, "elsewhere", "beef")):
        job["metadata"]["name"], job["status"] = name, {"jobDeploymentStatus": "Running"}
        job["metadata"]["labels"]["rcg/store"] = store or job["metadata"]["labels"]["rcg/store"]
        rig.cluster.kept[name] = job
    assert live_jobs(rig.cluster, rig.store) == [("live", "Running")]
    assert cancel(rig.cluster, rig.store, ["rdm"]) == []
    assert cancel(rig.cluster, rig.store, ["parts"]) == ["parts: deleted RayJob live (Running)"]
    assert rig.cluster.deleted == ["live"]


def test_the_rights_that_an_account_lacks_are_named(rig: Rig) -> None:
    assert missing_rights(rig.cluster) == []
    rig.cluster.forbidden = {"create rayjobs", "get pods/log"}
    assert missing_rights(rig.cluster) == ["create rayjobs", "get pods/log"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("rdm: started", False),
        ("rdm: 40/60  loss 0.1", False),
        ("rdm: done in 8.3 s · s3://bucket", False),
        ("2026-11-23 15:40:26,972\tINFO job_manager.py:581 -- Runtime env is setting up.", False),
        ("2026-11-23 15:46:35,074\tINFO sdk.py:520 -- WebSocket closed for job x with close code 1000", False),
        ("\x1b[92mSUCC\x1b[39m cli.py:65 -- \x1b[92m-------------\x1b[39m", False),
        ("(raylet) There are tasks with infeasible resource requests that cannot be scheduled. See", False),
        ("", False),
        ("warning: 3 pictures cannot be decoded", True),
        ("error: picture 3 is damaged", True),
        ("Traceback (most recent call last):", True),
    ],
)
def test_of_the_log_only_news_is_shown(line: str, shown: bool) -> None:
    assert is_news(line, "rdm") == shown


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image": ""}, "needs an image"),
        ({"image": "registry.example.com/rcg:1"}, "not pinned"),
        ({"image": IMAGE[:-1]}, "not pinned"),
        ({"device": "cuda"}, "no GPU"),
        ({"store": ".rcg/store"}, "cannot see this store"),
        ({"shared_folder": None}, "cannot see this store"),
        ({"rayjob_template": "/nowhere.yaml"}, "/nowhere.yaml cannot be read"),
    ],
)
def test_what_is_wrong_from_the_start_creates_nothing(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    rig = Rig(tmp_path, **settings)
    with pytest.raises(ConfigError, match=words) as caught:
        rig.run(running)
    assert caught.value.exit_code == 2
    assert rig.cluster.created == []
    assert not rig.store.root.exists()


def test_a_source_that_pods_cannot_see_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, store="s3://bucket/prefix")
    rig.spec = rig.spec.model_copy(update={"source": "/home/me/pictures"})
    with pytest.raises(ConfigError, match="cannot see this source"):
        rig.run(running)
    rig.spec = rig.spec.model_copy(update={"source": str(tmp_path / "pictures")})
    rig.driver.check(rig.spec, WorkerSettings())


def test_a_driver_imports_no_torch_before_there_is_a_job(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import flows.execution.project\n"
        "from flows.settings import WorkerSettings\n"
        "from tests.unit.flows.executors.test_launch import Rig\n"
        "rig = Rig(Path(sys.argv[1])); rig.driver.check(rig.spec, WorkerSettings())\n"
        "assert not {'torch', 'ray', 'mlflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)


def test_only_jobs_that_ended_long_ago_are_swept(rig: Rig) -> None:
    rig.run(running, rig.succeeds)
    [job] = rig.cluster.kept.values()
    year = datetime(2027, 1, 1, tzinfo=UTC)
    assert ended_jobs(rig.cluster, rig.store, year) == [], "KubeRay has not said when"
    job["status"]["endTime"] = "2026-11-23T19:52:25Z"
    assert [found["metadata"]["name"] for found in ended_jobs(rig.cluster, rig.store, year)] == rig.cluster.created
    assert ended_jobs(rig.cluster, rig.store, datetime(2026, 11, 23, 19, 52, tzinfo=UTC)) == []
    set_status(job, "Running", "RUNNING")
    assert ended_jobs(rig.cluster, rig.store, year) == []
