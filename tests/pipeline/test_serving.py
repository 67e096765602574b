"""The registered bundle behind MLflow's own server, as a process on a loopback port."""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.bundle.bundle import Bundle
from components.bundle.request import Request
from components.images.pictures import to_uint8
from components.store import open_store
from flows.registry import register
from tests.support.bundles import commit_bundle, make_bundle
from tests.support.folders import FolderArtifact
from tests.support.mlflow_database import make_tracking

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*type hint:UserWarning")
PATIENCE_S = 240
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> FolderArtifact:
    return make_bundle(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def server(bundle: FolderArtifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`mlflow models serve` of the registry's challenger; its address."""
    root = tmp_path_factory.mktemp("served")
    tracking = make_tracking(root)
    store = open_store(root / "store")
    register(tracking, store, commit_bundle(store, bundle), name="rcg", tags={})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/rcg@challenger"]
    command += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracking.uri, "MLFLOW_REGISTRY_URI": tracking.uri}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the server is called by its name
    environment |= {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/ping", root / "log")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), _direct.open(url, timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def _ask(server: str, columns: list[str], row: list[Any], **params: Any) -> list[dict[str, Any]]:
    body = {"dataframe_split": {"columns": columns, "data": [row]}, "params": params}
    request = urllib.request.Request(server, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with _direct.open(request, timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)["predictions"]
    return found


def _pixels(answers: list[dict[str, Any]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["image"])))) for answer in answers])


def test_invocations_answer_with_the_bundles_pictures(server: str, bundle: FolderArtifact) -> None:
    answers = _ask(server, ["class"], [None], n=3, seed=4)
    assert [(answer["request"], answer["index"]) for answer in answers] == [(0, 0), (0, 1), (0, 2)]
    assert (_pixels(answers) == to_uint8(Bundle.load(bundle.root).sample(Request(n=3, seed=4)))).all()
    picture = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(picture, format="PNG")
    like = _ask(server, ["image"], [base64.b64encode(picture.getvalue()).decode()], n=2, seed=4)
    assert _pixels(like).shape == (2, 8, 8, 3)
    assert (_pixels(like) != _pixels(answers)[:2]).any()


def test_a_wrong_request_is_refused_by_name(server: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        _ask(server, ["image"], ["no picture"], n=1)
    assert caught.value.code in (400, 500)
    assert "image" in caught.value.read().decode()
