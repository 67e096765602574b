"""The ray executor on a real local Ray: same code, same artifacts, replaced workers go on."""

import contextlib
import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from components.errors import ConfigError, DataError, RetryableError
from components.store.local import LocalStore
from components.training.config import TrainConfig
from components.training.report import Report
from flows.execution.work import Doing, work
from flows.executors import Executor
from flows.executors.base import Device
from flows.executors.inline import InlineExecutor
from flows.identity.artifact import SCHEMA
from flows.identity.fingerprint import Identity
from flows.runs.records import CommittedRun, Spec
from flows.settings import WorkerSettings
from tests.support.listening import Outside, can_be_outside, is_loopback, listening

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

TRAIN = TrainConfig.tiny().model_dump() | {"steps": 24, "batch_size": 6, "log_every": 8}


def make_spec(tmp_path: Path, **params: Any) -> Spec:
    marks = tmp_path / "marks"
    marks.mkdir(parents=True, exist_ok=True)
    nothing = dict.fromkeys(("kill_at", "durable", "bad_data_at", "stop_at"))
    given = {"numerics": 1, "train": TRAIN, "driver": 0, "marks": str(marks)} | nothing | params
    identity = Identity(schema_version=SCHEMA, stage="toy", params=given, inputs={}, modules={})
    return Spec(
        schema_version=SCHEMA,
        fingerprint="f" * 64,
        identity=identity,
        inputs={},
        source="demo",
        collection_lock=None,
        module="tests.support.ray_stage",
    )


class Log:
    def __init__(self) -> None:
        self.reports: list[Report] = []

    def on_report(self, report: Report) -> None:
        self.reports.append(report)

    def end(self, status: str) -> None:
        pass


def execute(
    tmp_path: Path, executor: Executor, n_workers: int, device: Device = "cpu", **params: Any
) -> tuple[CommittedRun, LocalStore, Log]:
    store, log = LocalStore(tmp_path / "store"), Log()
    settings = WorkerSettings(workers=n_workers, device=device, checkpoint_every=5, event_interval_s=0)
    doing = Doing(store, executor, settings, open_log=lambda *_: log)
    return work(make_spec(tmp_path, **params), doing).run, store, log


def ray_executor(max_failures: int = 2) -> Executor:
    from flows.executors.ray_train import RayExecutor

    return RayExecutor(max_failures)


def read(run: CommittedRun, store: LocalStore, name: str) -> bytes:
    return store.get(run.keys[name])


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> tuple[CommittedRun, LocalStore, Log]:
    return execute(tmp_path_factory.mktemp("inline"), InlineExecutor(), 1)


@pytest.fixture(scope="module")
def strange_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a package of the name of ours, and of one that ours imports: both end whoever imports them."""
    folder = tmp_path_factory.mktemp("strange")
    for name in ("flows", "components", "torch"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('code of the current folder ran')")
    return folder


@pytest.fixture(scope="module")
def local_ray(strange_folder: Path) -> Iterator[Path]:
    """One Ray for all tests: starting it takes longer than they do. The executor uses what it finds running."""
    from flows.executors.ray_train import running_ray

    with contextlib.ExitStack() as stack:
        with contextlib.chdir(strange_folder):
            folder = stack.enter_context(running_ray(2))
        yield folder
    assert not folder.exists()
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # Ray drops its processes without waiting for them; not in the middle of somebody else's test


def test_a_worker_without_memory_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before `local_ray` is there: Ray kills what it finds using memory on a machine that uses a hundredth of it."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    with pytest.raises(ConfigError, match="more memory than there is") as told:
        execute(tmp_path, ray_executor(max_failures=0), 1)
    assert "exceeded threshold" in str(told.value.got)
    assert len(str(told.value).splitlines()) <= 4


def test_nobody_outside_reaches_a_port_while_a_stage_runs(tmp_path: Path, local_ray: Path) -> None:
    """Whoever reaches Ray, or the ranks while they look for each other, runs code as this user."""
    seen: set[tuple[str, int]] = set()
    stage = threading.Thread(target=execute, args=(tmp_path, ray_executor(), 2))
    stage.start()
    while stage.is_alive():
        seen |= listening()
        stage.join(0.05)
    assert len(seen) >= 5, "Ray's servers and its workers"
    assert [address for address, _ in seen if not is_loopback(address)] == []
    if can_be_outside():
        with Outside() as outside:
            assert outside.reaches_a_port_that_is_open()
            assert outside.reaches({port for _, port in listening()}) == set()


_ASK = "import sys; from ray._raylet import GcsClient; GcsClient(sys.argv[1]).internal_kv_keys(b'', None); print('in')"


@pytest.mark.parametrize("who", ["nobody", "a guesser", "the owner"])
def test_only_the_owner_of_the_token_gets_in(tmp_path: Path, local_ray: Path, who: str) -> None:
    import ray

    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(tmp_path)}
    if who == "a guesser":
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    if who == "the owner":
        env |= {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}
    ask = [sys.executable, "-c", _ASK, ray.get_runtime_context().gcs_address]
    done = subprocess.run(ask, env=env, capture_output=True, text=True, check=False, timeout=120)
    if who == "the owner":
        assert done.stdout == "in\n", done.stderr
    else:
        assert done.returncode != 0
        assert "uthenticat" in done.stderr, done.stderr


def test_the_token_is_random_and_for_this_user_alone(local_ray: Path) -> None:
    found = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert found.stat().st_mode & 0o777 == 0o600
    assert found.parent.stat().st_mode & 0o777 == 0o700
    assert len(set(found.read_text())) > 8


def test_workers_import_nothing_from_the_folder_where_it_was_started(local_ray: Path, strange_folder: Path) -> None:
    import ray

    def look() -> list[str]:
        return sys.path

    assert str(strange_folder) not in ray.get(ray.remote(look).remote())


@pytest.mark.parametrize("where", ["while workers start", "in a worker"])
def test_so_is_one_that_ray_tells_of_as_a_failed_training(where: str) -> None:
    """How it came from a real pod whose limit was too low."""
    from ray.exceptions import OutOfMemoryError
    from ray.train import ControllerError, WorkerGroupError

    from flows.executors.ray_train import cause_of

    starved = OutOfMemoryError(
        "1 worker(s) were killed\nMemory usage 9B exceeded threshold of 8B (95.0%)\nTop 10 users"
    )
    failure = ControllerError(starved) if where == "while workers start" else WorkerGroupError("lost", {0: starved})
    cause = cause_of(failure, 0)
    assert isinstance(cause, ConfigError)
    assert cause.got == "Memory usage 9B exceeded threshold of 8B (95.0%)"


def test_stopped_then_killed_it_still_makes_the_inline_artifact(
    tmp_path: Path, local_ray: Path, inline: tuple[CommittedRun, LocalStore, Log]
) -> None:
    params = {"stop_at": 6, "kill_at": 6, "durable": 10, "driver": os.getpid()}
    with pytest.raises(RetryableError, match="told to stop: saved a checkpoint of step"):
        execute(tmp_path, ray_executor(), 1, **params)
    run, store, log = execute(tmp_path, ray_executor(), 2, **params)  # another number of workers may go on
    assert (tmp_path / "marks/killed").exists()
    expected, its_store, _ = inline
    assert run.manifest.files.keys() == expected.manifest.files.keys()
    drawn = [name for name in run.manifest.files if name.startswith("drawn/")]
    assert [run.manifest.files[name] for name in drawn] == [expected.manifest.files[name] for name in drawn]
    assert len(drawn) == 4
    mine = safetensors.torch.load(read(run, store, "weights.safetensors"))
    for name, tensor in safetensors.torch.load(read(expected, its_store, "weights.safetensors")).items():
        torch.testing.assert_close(mine[name], tensor, atol=1e-5, rtol=0)
    assert (run.record.attempt, run.record.world_size) == (2, 2)
    fetched = [int((tmp_path / "marks" / f"rank{rank}").read_text()) for rank in range(2)]
    assert fetched == [14, 14]  # stopped at step 6, killed at the sixth from there, resumed at step 10
    assert log.reports[-1].step == 24


def test_an_error_that_would_come_again_is_raised_at_once_as_itself(tmp_path: Path, local_ray: Path) -> None:
    with pytest.raises(DataError, match="picture 3 is damaged") as caught:
        execute(tmp_path, ray_executor(), 1, bad_data_at=3)
    assert caught.value.exit_code == 3
    assert (tmp_path / "marks/seen").read_text() == "x"
    assert LocalStore(tmp_path / "store").head(f"runs/toy/{'f' * 64}/manifest.json") is None


def test_workers_that_do_not_reach_each_other_say_so(
    tmp_path: Path, local_ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gloo is told of a network that is not there, as on a pod without the interface that the setting names."""
    from flows.executors import ray_train
    from tests.support.ray_network import OnNoNetwork

    config = OnNoNetwork(backend="gloo", timeout_s=20, folder=str(local_ray))
    monkeypatch.setattr(ray_train, "_torch_config", lambda *_: config)
    with pytest.raises(ConfigError, match="the workers do not reach each other") as told:
        execute(tmp_path, ray_executor(), 2)
    assert "nosuch0" in str(told.value.got)
    assert "RCG_GLOO_INTERFACE" in str(told.value)


def test_a_gpu_that_is_not_there_is_a_config_error(tmp_path: Path, local_ray: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="2 workers need 2 GPUs"):
        execute(tmp_path, ray_executor(), 2, device="cuda")
