"""MLflow in the cluster: by its service name with a password only, on PostgreSQL, its data outliving its pods."""

import base64
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support import cluster_rig
from tests.support.cluster_rig import MLFLOW_PASSWORD, MLFLOW_URI, MLFLOW_USER, kubectl
from tests.support.s3_rig import S3Server

SYSTEM = "rcg-system"
NAME = "http://rcg-mlflow.rcg-system.svc.cluster.local:5000"
API = "api/2.0/mlflow"
pytestmark = pytest.mark.usefixtures("cluster")


class Server:
    """MLflow's REST API as the administrator uses it, from outside."""

    def __init__(self) -> None:
        self.session = requests.Session()
        self.session.auth = (MLFLOW_USER, MLFLOW_PASSWORD)

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.session.request(method, f"{MLFLOW_URI}/{path}", timeout=30, **more)

    def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self.call(method, f"{API}/{path}", **more)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    with found.session:
        yield found


def test_nobody_gets_in_without_the_password() -> None:
    url = f"{MLFLOW_URI}/{API}/experiments/search?max_results=1"
    assert requests.get(url, timeout=30).status_code == 401
    assert requests.get(url, timeout=30, auth=(MLFLOW_USER, "guessed-password")).status_code == 401
    assert requests.get(url, timeout=30, auth=(MLFLOW_USER, MLFLOW_PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("rcg-mlflow.rcg-system.svc.cluster.local:5000", 200),
        ("rcg-mlflow.rcg-system.svc.cluster.local", 200),
        ("rcg-mlflow:5000", 200),
        ("rcg-mlflow.rcg-system.svc.cluster.local.example.com:5000", 403),
    ],
)
def test_hosts(server: Server, host: str, status: int) -> None:
    answer = server.call("GET", f"{API}/experiments/search?max_results=1", headers={"Host": host})
    assert answer.status_code == status


def test_answers_by_its_service_name_in_a_pod() -> None:
    """From the database's pod, which has neither curl nor Python: a request in the shell's own words."""
    token = base64.b64encode(f"{MLFLOW_USER}:{MLFLOW_PASSWORD}".encode()).decode()
    host = NAME.removeprefix("http://")
    name, port = host.split(":")
    request = f"GET /{API}/experiments/get-by-name?experiment_name=Default HTTP/1.1\\r\\nHost: {host}\\r\\n"
    request += f"Authorization: Basic {token}\\r\\nConnection: close\\r\\n\\r\\n"
    script = f"exec 3<>/dev/tcp/{name}/{port}; printf '{request}' >&3; cat <&3"
    answer = kubectl("-n", SYSTEM, "exec", "rcg-postgres-0", "--", "bash", "-c", script)
    assert answer.startswith("HTTP/1.1 200")
    assert '"experiment_id"' in answer


def test_data_outlive_the_pods(server: Server, s3: S3Server) -> None:
    name = f"restart-{uuid.uuid4().hex[:8]}"
    experiment = server.ask("POST", "experiments/create", json={"name": name})["experiment_id"]
    run = server.ask("POST", "runs/create", json={"experiment_id": experiment})["run"]["info"]
    metric = {"run_id": run["run_id"], "key": "loss", "value": 0.25, "timestamp": 1, "step": 3}
    server.ask("POST", "runs/log-metric", json=metric)
    path = f"api/2.0/mlflow-artifacts/artifacts/{experiment}/{run['run_id']}/artifacts/note.txt"
    assert server.call("PUT", path, data=b"kept").ok
    assert run["artifact_uri"] == f"mlflow-artifacts:/{experiment}/{run['run_id']}/artifacts"

    for workload in ("statefulset/rcg-postgres", "deployment/rcg-mlflow"):
        kubectl("-n", SYSTEM, "rollout", "restart", workload)
    cluster_rig.await_system()

    found = server.ask("GET", "runs/get", params={"run_id": run["run_id"]})["run"]["data"]
    assert [(each["key"], each["value"], each["step"]) for each in found["metrics"]] == [("loss", 0.25, 3)]
    assert server.call("GET", path).content == b"kept"
    assert "s3_PutObject" in s3.requests()


def test_password_is_in_no_argument() -> None:
    pods = json.loads(kubectl("-n", SYSTEM, "get", "pods", "-o", "json"))["items"]
    assert {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods} >= {"rcg-mlflow", "rcg-postgres"}
    for secret in ("local-postgres", MLFLOW_PASSWORD, "local-flask-key"):
        assert secret not in json.dumps([pod["spec"] for pod in pods])


def test_database_is_postgresql() -> None:
    query = "select count(*) from experiments"
    answer = kubectl(
        "-n", SYSTEM, "exec", "rcg-postgres-0", "--", "psql", "-U", "postgres", "-d", "mlflow", "-Atc", query
    )
    assert int(answer) >= 1
    assert cluster_rig.resource("pvc", "data-rcg-postgres-0", SYSTEM)["status"]["phase"] == "Bound"
