"""MLflow is told of stages: live, at their end, after a kill, after MLflow was down, and never twice."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.errors import ConfigError, RetryableError
from components.store import open_store
from components.training.report import Report
from flows.identity.artifact import FileEntry, digest_of
from flows.runs.events import EventWriter
from flows.runs.records import RunRecord, commit
from flows.settings import TrackingSettings
from flows.tracking import LiveLog, StageRecord, Tracking, note, pipeline_id, resolve_tracking
from flows.tracking.client import mlflow_errors, open_client, probe
from flows.tracking.pending import leave_request
from flows.tracking.record import check_database
from flows.tracking.writer import replay
from tests.support.made_runs import a_record
from tests.support.mlflow_database import make_tracking
from tests.support.s3_faults import faulty_proxy
from tests.support.tls import private_authority

PATIENCE_S = 90
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mlflow's own use of its libraries


@pytest.fixture
def tracking(tmp_path: Path) -> Tracking:
    return make_tracking(tmp_path)


def _record(tmp_path: Path, stage: str = "rdm", **changes: Any) -> StageRecord:
    values: dict[str, Any] = {
        "pipeline": "p" * 64,
        "stage": stage,
        "fingerprint": digest_of(stage.encode()),
        "store": f"{tmp_path}/store",
        "reused": False,
        "params": {"train": {"lr": 0.1, "steps": 20}, "numerics": 1},
        "pipeline_params": {stage: {"numerics": 1}},
        "inputs": {"encode": "e" * 64},
        "tags": {"git_commit": "abc"},
    }
    return StageRecord(**values | changes)


def _report(step: int, *, image: bool = False) -> Report:
    images = {"grid": np.full((4, 4, 3), step, np.uint8)} if image else {}
    return Report(step=step, metrics={"loss": 1.0 / (step + 1)}, images=images)


def _leave_events(record: StageRecord, steps: range, attempt: int = 1, *, images: bool = True) -> None:
    events = EventWriter(open_store(record.store), record.prefix, attempt, interval_s=0)
    for step in steps:
        events.on_report(_report(step, image=images and step == 10))
    events.flush()


def _commit(record: StageRecord, metrics: dict[str, float]) -> str:
    store = open_store(record.store)
    data = json.dumps(metrics).encode()
    key = f"{record.prefix}/out/1/metrics.json"
    store.put(key, data)
    store.put(f"{record.prefix}/attempts/1.json", b"{}")

    def run_record(digest: str) -> RunRecord:
        made = a_record(record.stage, record.fingerprint, digest, {"metrics.json": key})
        return made.model_copy(update={"started_ms": 1_600_000_000_000, "ended_ms": 1_700_000_000_000})

    entry = FileEntry(size=len(data), sha256=digest_of(data))
    return commit(store, record.prefix, {"metrics.json": entry}, run_record).digest


def _children(tracking: Tracking) -> list[Any]:
    client = open_client(tracking.uri)
    experiment = client.get_experiment_by_name("rcg")
    assert experiment is not None
    return list(
        client.search_runs([experiment.experiment_id], "tags.`rcg.role` = 'stage'", order_by=["start_time ASC"])
    )


def _wait(tracking: Tracking) -> None:
    """Until the writers that are at work have done their requests; nothing is worked off here."""
    deadline = time.monotonic() + PATIENCE_S
    while list(tracking.state.glob("*.pending.json")):
        assert time.monotonic() < deadline, (tracking.state / "writer.log").read_text()
        time.sleep(0.1)


def _no_warning(text: str) -> None:
    raise AssertionError(text)


def test_stage_at_work_is_logged_live_and_completed(tmp_path: Path, tracking: Tracking) -> None:
    record = _record(tmp_path)
    log = LiveLog(tracking, record, _no_warning)
    events = EventWriter(open_store(record.store), record.prefix, 1, interval_s=0)
    for step in (0, 10):
        events.on_report(_report(step, image=True))
        log.on_report(_report(step))
    client, deadline = open_client(tracking.uri), time.monotonic() + PATIENCE_S
    while not (found := _search(client)) or len(client.get_metric_history(found[0].info.run_id, "loss")) < 2:
        assert time.monotonic() < deadline, "nothing was logged while the stage ran"
        time.sleep(0.2)
    assert found[0].info.status == "RUNNING"
    events.on_report(_report(20))
    digest = _commit(record, {"loss": 0.5, "fd": 3.0})
    log.end("FINISHED")
    _wait(tracking)

    (run,) = _children(tracking)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "rdm"
    assert run.data.params == {"train.lr": "0.1", "train.steps": "20", "numerics": "1"}
    assert run.data.tags["rcg.content_digest"] == digest
    assert run.data.tags["rcg.git_commit"] == "abc"
    assert run.data.metrics["fd"] == 3.0
    assert run.data.metrics["final_loss"] == 0.5, "a final metric does not become a step of the curve of that name"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (10, 1 / 11), (20, 1 / 21)]
    pictures = {f.path.split("+timestamp")[0] for f in client.list_artifacts(run.info.run_id, "images")}
    assert pictures == {"images/grid+step+0", "images/grid+step+10"}
    assert [i.dataset.name for i in run.inputs.dataset_inputs] == ["encode"]
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["rcg.pipeline"] == record.pipeline
    assert parent.data.params == {"rdm.numerics": "1"}
    assert parent.info.status == "FINISHED"


def _search(client: Any) -> list[Any]:
    experiment = client.get_experiment_by_name("rcg")
    return client.search_runs([experiment.experiment_id], "tags.`rcg.role` = 'stage'") if experiment else []


def test_replay_is_idempotent_and_continues_the_same_run(tmp_path: Path, tracking: Tracking) -> None:
    record = _record(tmp_path)
    _leave_events(record, range(0, 20, 5))
    LiveLogRequest(tracking, record)
    assert replay(tracking.state) == {}
    (run,) = _children(tracking)
    assert run.info.status == "KILLED", "the stage ended without a commit and without a word"

    _leave_events(record, range(10, 40, 5), attempt=2)  # resumed from a checkpoint: steps 10 and 15 come again
    _commit(record, {"fd": 1.0})
    for _ in range(2):
        LiveLogRequest(tracking, record)
        assert replay(tracking.state) == {}
    (again,) = _children(tracking)
    assert again.info.run_id == run.info.run_id
    assert again.info.status == "FINISHED"
    client = open_client(tracking.uri)
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "loss")]
    assert sorted(steps) == list(range(0, 40, 5)), "every step once"
    names = [f.path for f in client.list_artifacts(run.info.run_id, "images") if "compressed" not in f.path]
    assert len(names) == 1


class LiveLogRequest:
    """A request as a killed stage leaves it."""

    def __init__(self, tracking: Tracking, record: StageRecord) -> None:
        from flows.tracking.pending import leave_request

        self.path = leave_request(tracking, record)


def test_reused_stage_points_at_the_run_that_did_the_work(tmp_path: Path, tracking: Tracking) -> None:
    first = _record(tmp_path)
    _leave_events(first, range(3))
    _commit(first, {"fd": 1.0})
    LiveLogRequest(tracking, first)
    assert replay(tracking.state) == {}
    second = _record(tmp_path, pipeline="q" * 64, reused=True)
    note(tracking, second, _no_warning)
    _wait(tracking)
    origin, reused = _children(tracking)
    assert reused.data.tags["rcg.reused_from"] == origin.info.run_id
    assert reused.data.tags["mlflow.parentRunId"] != origin.data.tags["mlflow.parentRunId"]
    assert reused.data.metrics == {"fd": 1.0}, "final metrics, no curve"
    before = sorted(tracking.state.iterdir())
    note(tracking, second, _no_warning)
    assert sorted(tracking.state.iterdir()) == before, "a repetition asks for nothing"


def test_mlflow_down_costs_one_warning_and_a_later_command_catches_up(tmp_path: Path, tracking: Tracking) -> None:
    record = _record(tmp_path)
    down = Tracking(uri="http://127.0.0.1:9", experiment="rcg", artifacts=None, state=tracking.state)
    warnings: list[str] = []
    started = time.monotonic()
    log = LiveLog(down, record, warnings.append)
    for step in range(50):
        log.on_report(_report(step))
    _leave_events(record, range(3))
    _commit(record, {"fd": 2.0})
    log.end("FINISHED")
    assert time.monotonic() - started < 5
    assert len(warnings) == 1
    assert "MLflow does not answer" in warnings[0]
    (request,) = tracking.state.glob("*.pending.json")

    values = json.loads(request.read_text())  # MLflow is up again: here, under the address that was meant
    values["tracking"]["uri"], values["tracking"]["artifacts"] = tracking.uri, tracking.artifacts
    request.write_text(json.dumps(values))
    request.rename(request.with_name(f"{record.key(tracking)}.pending.json"))
    note(tracking, _record(tmp_path, reused=True), _no_warning)  # the same command again: it finds the run finished
    _wait(tracking)
    (run,) = _children(tracking)
    assert run.data.metrics["fd"] == 2.0
    assert run.data.metrics["loss"] == pytest.approx(1 / 3)
    assert "rcg.reused_from" not in run.data.tags


def test_short_stage_costs_next_to_nothing_and_is_tracked(tmp_path: Path, tracking: Tracking) -> None:
    record = _record(tmp_path, "collect")
    started = time.monotonic()
    log = LiveLog(tracking, record, _no_warning)
    _commit(record, {"n": 5.0})
    log.end("FINISHED")
    assert time.monotonic() - started < 1
    _wait(tracking)
    (run,) = _children(tracking)
    assert run.data.metrics == {"n": 5.0}
    assert (run.info.start_time, run.info.end_time) == (1_600_000_000_000, 1_700_000_000_000), "the stage's times"


def test_request_of_a_running_stage_is_left_alone_until_it_fails(tmp_path: Path, tracking: Tracking) -> None:
    log = LiveLog(tracking, _record(tmp_path), _no_warning)
    assert replay(tracking.state) == {}
    assert list(tracking.state.glob("*.pending.json"))
    log.end("FAILED")
    _wait(tracking)
    (run,) = _children(tracking)
    assert run.info.status == "FAILED"


def test_killed_stage_ends_its_writer(tmp_path: Path, tracking: Tracking) -> None:
    record = _record(tmp_path)
    _leave_events(record, range(3))
    code = f"""
import time
from pathlib import PosixPath
from components.training.report import Report
from flows.tracking import LiveLog, StageRecord, Tracking
log = LiveLog({tracking!r}, {record!r}, print)
log.on_report(Report(step=1, metrics={{"loss": 1.0}}))
print("up", flush=True)
time.sleep(600)
"""
    stage = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert stage.stdout is not None
    assert stage.stdout.readline() == "up\n"
    client, deadline = open_client(tracking.uri), time.monotonic() + PATIENCE_S
    while not _search(client):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    stage.stdout.close()
    _wait(tracking)
    (run,) = _children(tracking)
    assert run.info.status == "KILLED"
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 3


def test_database_of_a_newer_mlflow_is_named(tmp_path: Path, tracking: Tracking) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")
    connection.close()
    with pytest.raises(ConfigError, match=r"newer MLflow[\s\S]*feedfacecafe[\s\S]*fix:"):
        open_client(tracking.uri)
    warnings: list[str] = []
    log = LiveLog(tracking, _record(tmp_path), warnings.append)
    log.end("FINISHED")
    assert len(warnings) == 1
    assert "newer MLflow" in warnings[0]
    (tmp_path / "not.db").write_text("no database at all, but long enough to be looked at" * 10)
    with pytest.raises(ConfigError, match="not a database"):
        check_database(f"sqlite:///{tmp_path}/not.db")


def test_a_deleted_experiment_is_named_with_the_way_back(tmp_path: Path, tracking: Tracking) -> None:
    client = open_client(tracking.uri)
    number = client.create_experiment(tracking.experiment)
    client.delete_experiment(number)
    record = _record(tmp_path)
    _commit(record, {"fd": 2.0})
    leave_request(tracking, record)
    (problem,) = replay(tracking.state).values()
    assert isinstance(problem, ConfigError)
    assert "the MLflow experiment was deleted" in str(problem)
    assert f"mlflow experiments restore --experiment-id {number}" in str(problem)
    client.restore_experiment(number)
    assert replay(tracking.state) == {}, "nothing was lost meanwhile"
    assert len(_children(tracking)) == 1


class _Answering(BaseHTTPRequestHandler):
    """An MLflow that has no experiments, below a path."""

    def do_GET(self) -> None:
        body = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": self.path}).encode()
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def test_an_https_proxy_with_its_own_ca_and_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, context = private_authority(tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answering) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        with faulty_proxy(f"http://127.0.0.1:{upstream.server_address[1]}", context) as proxy:
            uri = f"{proxy.endpoint}/tracking"
            with pytest.raises(ConfigError, match="certificate") as caught, mlflow_errors(uri):
                open_client(uri).get_experiment_by_name("rcg")
            assert "REQUESTS_CA_BUNDLE" in str(caught.value)
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
            with mlflow_errors(uri):
                assert open_client(uri).get_experiment_by_name("rcg") is None
            assert proxy.seen[-1].path.startswith("/tracking/api/2.0/mlflow/experiments/get-by-name")
        upstream.shutdown()


def test_a_proxy_on_the_way_out_is_the_one_that_has_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        probe("https://mlflow.example.invalid")
        monkeypatch.setenv("no_proxy", "mlflow.example.invalid")
        with pytest.raises(RetryableError, match="does not answer"):
            probe("https://mlflow.example.invalid")


def test_pipeline_identity_sees_params_collection_and_code_but_not_key_order() -> None:
    base = pipeline_id({"a": 1, "b": 2}, "lock", "code")
    assert pipeline_id({"b": 2, "a": 1}, "lock", "code") == base
    others = [pipeline_id({"a": 1, "b": 3}, "lock", "code"), pipeline_id({"a": 1, "b": 2}, "lock2", "code")]
    others.append(pipeline_id({"a": 1, "b": 2}, "lock", "code2"))
    assert len({base, *others}) == 4


def test_off_and_nonsense_uris(tmp_path: Path) -> None:
    assert resolve_tracking(TrackingSettings(mlflow_uri="off"), tmp_path) is None
    with pytest.raises(ConfigError, match="not a URI"):
        resolve_tracking(TrackingSettings(mlflow_uri="mlruns"), tmp_path)


def test_stage_process_never_imports_mlflow() -> None:
    code = (
        "import sys, flows.tracking; assert not {'mlflow', 'torch', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
