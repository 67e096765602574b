"""Drivers of the cluster's tests: checkouts with the real `rcg`, and what a test does to the cluster under them."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.collection.snapshot import take_snapshot
from components.collection.source import open_source
from components.store import open_store
from components.store.base import Store
from flows.executors.kuberay.manifest import store_key
from flows.identity.artifact import digest_of
from flows.runs.transfer import data_copy
from tests.support.cluster_rig import ROOT, await_system, kubectl, wait_until

JOBS, SYSTEM = "rcg-jobs", "rcg-system"
SMALL = {"RCG_WORKER_CPUS": "150m", "RCG_WORKER_MEMORY": "1500Mi", "RCG_HEAD_MEMORY": "2500Mi"}
"""Settings of a stage that leaves room for another one beside it."""
RUN = Path(os.environ.get("RCG_CLUSTER_RUN", "/run/rcg-cluster"))


def demand(lacking: str | None) -> None:
    """Skip aloud for want of something, or fail where RCG_CLUSTER_REQUIRED=1."""
    if lacking and os.environ.get("RCG_CLUSTER_REQUIRED") == "1":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)


def fresh_name(start: str) -> str:
    """A name that no earlier session used."""
    return f"{start}-{uuid.uuid4().hex[:10]}"


@contextlib.contextmanager
def credentials(environment: Mapping[str, str]) -> Iterator[None]:
    """For tests that look into the store and into MLflow themselves: who they are."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            if not name.startswith("RCG_"):
                patch.setenv(name, value)
        yield


@dataclass
class Checkout:
    """A folder with params and the demo's collection.lock, a store of its own, and the environment of a driver."""

    root: Path
    environment: Mapping[str, str]
    settings: dict[str, str] = field(default_factory=dict)
    steps: int = 20
    store_uri: str = field(default_factory=lambda: fresh_name("s3://rcg/test"))
    _drivers: "list[Driver]" = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        params = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())
        params["encoder"]["train"] |= {"steps": self.steps, "log_every": max(1, self.steps // 50)}
        self.write_params(params)
        take_snapshot(open_source("demo"), self.root / "collection.lock", rebuild=False)

    def write_params(self, params: dict[str, Any]) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(params))

    @property
    def store(self) -> Store:
        return open_store(self.store_uri)

    def start(self, *arguments: str, **settings: str) -> "Driver":
        """`rcg …`, in a process group of its own; what it prints goes to a file."""
        mine = {"RCG_STORE": self.store_uri, "RCG_SOURCE": "demo", "RCG_MLFLOW_URI": "off"} | self.settings | settings
        base = {name: value for name, value in os.environ.items() if not name.startswith("RCG_")}
        output = self.root / f"out-{uuid.uuid4().hex[:6]}.txt"
        with output.open("w") as file:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("rcg")), *arguments],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=base | self.environment | mine,
                start_new_session=True,
            )
        self._drivers.append(Driver(process, output))
        return self._drivers[-1]

    def rcg(self, *arguments: str, timeout_s: float = 600, **settings: str) -> "Done":
        return self.start(*arguments, **settings).wait(timeout_s)

    def clean(self) -> None:
        """No drivers of this checkout and no jobs of its store any more."""
        for driver in self._drivers:
            if driver.process.poll() is None:
                driver.send(signal.SIGKILL)
        selector = f"rcg/store={store_key(self.store_uri)}"
        kubectl("-n", JOBS, "delete", "rayjobs", "-l", selector, "--wait=false", "--ignore-not-found")

    def prepare(self) -> None:
        """What the encoder needs, made without the cluster."""
        done = self.rcg("run", "collect", RCG_EXECUTOR="inline", RCG_WORKERS="1")
        assert done.code == 0, done.text

    def prepare_as(self, other: "Checkout") -> None:
        """The same, copied from a checkout that has it."""
        shutil.copytree(other.root / "artifacts", self.root / "artifacts")
        prefix = other.run_prefix("collect")
        data_copy(other.store, self.store, {prefix: digest_of(other.store.get(f"{prefix}/manifest.json"))})

    def run_prefix(self, stage: str) -> str:
        """The folder of the stage's only run."""
        found = {"/".join(info.key.split("/")[:3]) for info in self.store.list(f"runs/{stage}")}
        assert len(found) == 1, found
        return found.pop()

    def read(self, stage: str, name: str) -> dict[str, Any]:
        """A JSON file of the stage's run."""
        found: dict[str, Any] = json.loads(self.store.get(f"{self.run_prefix(stage)}/{name}"))
        return found

    def jobs(self, stage: str = "encoder") -> list[dict[str, Any]]:
        """RayJobs of the stage's run, whatever became of them."""
        fingerprint = self.run_prefix(stage).rpartition("/")[2]
        items = json.loads(
            kubectl("-n", JOBS, "get", "rayjobs", "-l", f"rcg/fingerprint={fingerprint[:63]}", "-o", "json")
        )
        mine = [job for job in items["items"] if job["metadata"]["annotations"]["rcg/spec"].startswith(self.store_uri)]
        return sorted(mine, key=lambda job: str(job["metadata"]["name"]))

    def pods(self, role: str, stage: str = "encoder") -> list[str]:
        """Names of running pods of the stage's newest job: head or worker."""
        cluster = self.jobs(stage)[-1]["status"]["rayClusterName"]
        selector = f"ray.io/cluster={cluster},ray.io/node-type={role}"
        return kubectl(
            "-n",
            JOBS,
            "get",
            "pods",
            "-l",
            selector,
            "--field-selector=status.phase=Running",
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ).split()

    def steps_done(self, stage: str = "encoder") -> int:
        """The newest step that the run's events tell of."""
        with contextlib.suppress(AssertionError):
            keys = sorted(
                info.key for info in self.store.list(f"{self.run_prefix(stage)}/events") if "jsonl" in info.key
            )
            lines = self.store.get(keys[-1]).splitlines() if keys else []
            return int(json.loads(lines[-1])["step"]) if lines else 0
        return 0

    def checkpoint(self, stage: str = "encoder", *, attempt: int | None = None, oldest: bool = False) -> int:
        """Step of the newest (or oldest) checkpoint in the store, of one attempt or of all; 0 for none."""
        with contextlib.suppress(AssertionError):
            folder = f"{self.run_prefix(stage)}/checkpoints{'' if attempt is None else f'/{attempt}'}"
            keys = (info.key for info in self.store.list(folder))
            steps = sorted(int(found[1]) for key in keys if (found := re.search(r"step-(\d+)", key)))
            return steps[0 if oldest else -1] if steps else 0
        return 0

    def until_step(self, step: int, driver: "Driver", timeout_s: float = 400) -> None:
        """Wait for training to get so far. Fails at once when the driver ends before."""

        def there() -> bool:
            assert driver.process.poll() is None, driver.text
            return self.steps_done() >= step

        wait_until(there, f"step {step}", timeout_s)


@dataclass
class Done:
    """How a driver ended and all that it printed."""

    code: int
    text: str


@dataclass
class Driver:
    """A running driver."""

    process: "subprocess.Popen[bytes]"
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait(self, timeout_s: float = 600) -> Done:
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            raise AssertionError(f"not over within {timeout_s:g} s:\n{self.text}") from None
        return Done(code, self.text)

    def send(self, number: int) -> None:
        """To the process and what it started."""
        os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()

    def until(self, words: str, timeout_s: float = 120) -> None:
        """Wait for it to print these words."""
        wait_until(lambda: words in self.text or self._ended(), words, timeout_s)
        assert words in self.text, self.text

    def _ended(self) -> bool:
        return self.process.poll() is not None


@contextlib.contextmanager
def api_server_stopped() -> Iterator[None]:
    """Nobody gets an answer from the API server meanwhile; connections to it hang."""
    pid = int((RUN / "kube-apiserver.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def mlflow_stopped() -> Iterator[None]:
    """MLflow is not there meanwhile, and finds its database in a new pod."""
    kubectl("-n", SYSTEM, "scale", "deployment/rcg-mlflow", "--replicas=0")
    kubectl("-n", SYSTEM, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=rcg-mlflow", "--timeout=60s")
    kubectl("-n", SYSTEM, "rollout", "restart", "statefulset/rcg-postgres")
    try:
        yield
    finally:
        kubectl("-n", SYSTEM, "scale", "deployment/rcg-mlflow", "--replicas=1")
        await_system()


def sleep_until(moment: float) -> None:
    """Wait for a moment of time.monotonic()."""
    time.sleep(max(0.0, moment - time.monotonic()))
