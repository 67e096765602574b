"""A Ray of our own on this machine, for as long as one stage runs: closed to every other user and machine.

Whoever reaches a port of Ray with its token runs code as this user. So all ports, torch's too, are on loopback, and the
token is random, in a file that only this user reads, gone at the end. Workers import our code and installed packages,
nothing from the current folder.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.job_config import JobConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

_LOOPBACK = "127.0.0.1"
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "OMP_WAIT_POLICY": "PASSIVE",  # the workers share the cores, and threads that spin at barriers starve each other
}
_OBJECT_STORE_BYTES = 80_000_000


@contextlib.contextmanager
def local_ray(n_workers: int) -> Iterator[Path]:
    """Start Ray, connect, and shut it down at the end. Gives a private folder; that of Ray is open to every user."""
    folder = Path(tempfile.mkdtemp(prefix="rcg-", dir="/tmp"))  # sockets below it: paths have to be short
    token = folder / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    values = _ENVIRONMENT | {"RAY_AUTH_TOKEN_PATH": str(token)}
    try:
        with environment(values, without=("RAY_AUTH_TOKEN",)), _read_again(), _on_loopback():
            try:
                ray.init(
                    address="local",
                    num_cpus=n_workers,
                    include_dashboard=False,
                    log_to_driver=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _temp_dir=str(folder / "r"),
                    _node_ip_address=_LOOPBACK,
                    job_config=_OwnCode(_py_driver_sys_path=[str(Path(__file__).parents[2])]),
                )
                yield folder
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def environment(values: Mapping[str, str], *, without: tuple[str, ...] = ()) -> Iterator[None]:
    """These variables, and those absent, for this block and the processes that start in it."""
    before = {name: os.environ.get(name) for name in (*values, *without)}
    os.environ.update(values)
    for name in without:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _read_again() -> Iterator[None]:
    """Ray reads mode and token once per process; here it reads them at the start of the block and after its end."""
    _forget()
    try:
        yield
    finally:
        _forget()


def _forget() -> None:
    compiled: Any = ray._raylet
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray replaces a loopback address by one that others reach, unless it takes clusters to be impossible here."""
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


class _OwnCode(JobConfig):
    """Ray puts the current folder first on the workers' path, unless the job brings a folder of its own."""

    def _runtime_env_has_working_dir(self) -> bool:
        return True


@dataclass
class LocalTorchConfig(TorchConfig):
    """Ranks of one machine find each other through a file; torch's server for that listens on every interface."""

    folder: str = ""

    @property
    def backend_cls(self) -> type["ByFile"]:
        return ByFile


class ByFile(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        n, meeting = len(worker_group), f"file://{backend_config.folder}/meeting-{uuid.uuid4().hex}"
        worker_group.execute(_set_torch_distributed_env_vars)
        started = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend,
                world_rank=rank,
                world_size=n,
                init_method=meeting,
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(n)
        ]
        ray.get(started)
