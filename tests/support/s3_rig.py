"""A real S3 server for tests: the rig's, on a port and in a folder of its own."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ACCESS_KEY, SECRET_KEY, REGION = "rcgtest", "rcgtest-secret", "us-east-1"
CLEAN = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
"""Keeps the clients from looking for credentials where tests have none."""


def rig_folder() -> Path:
    """The rig's scripts; skips the test when there are none."""
    folder = (ROOT / os.environ.get("RCG_RIGS", "../shared") / "s3").resolve()
    if not (folder / "up").is_file():
        pytest.skip(f"no S3 server to test with: {folder}/up is missing (set RCG_RIGS)")
    return folder


def free_port() -> int:
    """A TCP port that nothing on the loopback interface listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def aws_environment(endpoint: str, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> dict[str, str]:
    """What the clients read to find the server at endpoint."""
    keys = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key, "AWS_DEFAULT_REGION": REGION}
    return CLEAN | keys | {"AWS_ENDPOINT_URL": endpoint}


def s3_client(endpoint: str) -> Any:
    """boto3's, whatever the environment says."""
    import boto3

    return boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION).client("s3", endpoint_url=endpoint)


@dataclass(frozen=True)
class S3Server:
    """One server. stop() keeps the data; start() goes on with it."""

    folder: Path
    """State and data."""
    address: str
    """ip:port"""
    buckets: Sequence[str] = ("rcg",)

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    @property
    def environment(self) -> dict[str, str]:
        return aws_environment(self.endpoint)

    def start(self) -> None:
        """Start unless it runs, and create the buckets."""
        self._run("up")

    def stop(self) -> None:
        self._run("down")

    def client(self) -> Any:
        return s3_client(self.endpoint)

    def requests(self) -> list[str]:
        """Operations so far, e.g. s3_PutObject, out of the access log."""
        log = self.folder / "access.log"
        words = (line.split() for line in log.read_text().splitlines()) if log.exists() else iter(())
        return [next((word for word in line if word.startswith("s3_")), "") for line in words]

    def _run(self, script: str) -> None:
        settings = {
            "RCG_S3_ADDR": self.address,
            "RCG_S3_STATE": str(self.folder),
            "RCG_S3_BUCKETS": " ".join(self.buckets),
            "RCG_S3_ACCESS_KEY": ACCESS_KEY,
            "RCG_S3_SECRET_KEY": SECRET_KEY,
            "RCG_S3_REGION": REGION,
        }
        done = subprocess.run(
            [rig_folder() / script], env=os.environ | settings, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the S3 rig's {script} failed: {done.stderr}")


@contextlib.contextmanager
def s3_server(folder: Path, *buckets: str, address: str | None = None) -> Iterator[S3Server]:
    """A running server; skips the test when there is no rig. Its data stay in `folder`."""
    server = S3Server(folder, address or f"127.0.0.1:{free_port()}", buckets or ("rcg",))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def moto_server(*buckets: str) -> Iterator[str]:
    """The endpoint of moto's S3, in threads of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = s3_client(endpoint)
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        yield endpoint
    finally:
        server.stop()
