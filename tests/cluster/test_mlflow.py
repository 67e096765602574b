"""MLflow in the cluster: by its service name with a password only, on PostgreSQL. That its data outlive its pods is in
test_outages.py."""

import base64
import json
from collections.abc import Iterator

import pytest
import requests

from tests.cluster.mlflow_api import API, Server
from tests.support import cluster_rig
from tests.support.cluster_jobs import fresh_name
from tests.support.cluster_rig import MLFLOW_PASSWORD, MLFLOW_URI, MLFLOW_USER, kubectl

SYSTEM = "rcg-system"
NAME = "http://rcg-mlflow.rcg-system.svc.cluster.local:5000"
pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        yield found


def test_nobody_gets_in_without_the_password() -> None:
    url = f"{MLFLOW_URI}/{API}/experiments/search?max_results=1"
    assert requests.get(url, timeout=30).status_code == 401
    assert requests.get(url, timeout=30, auth=(MLFLOW_USER, "guessed-password")).status_code == 401
    assert requests.get(url, timeout=30, auth=(MLFLOW_USER, MLFLOW_PASSWORD)).status_code == 200


def test_the_driver_administers_nothing(server: Server) -> None:
    """It makes no users and changes nothing that another one created; the administrator does both."""
    user = {"username": fresh_name("somebody"), "password": "a-long-password"}
    experiment = {"name": fresh_name("experiment")}
    with Server(*cluster_rig.MLFLOW_ADMIN) as admin:
        assert admin.ask("GET", "users/get", params={"username": MLFLOW_USER})["user"]["is_admin"] is False
        others = {"experiment_id": admin.ask("POST", "experiments/create", json=experiment)["experiment_id"]}
        for path, body in (("users/create", user), ("runs/create", others), ("experiments/delete", others)):
            assert server.call("POST", f"{API}/{path}", json=body).status_code == 403, path
            assert admin.call("POST", f"{API}/{path}", json=body).ok, path
        assert server.call("GET", f"{API}/experiments/get", params=others).ok, "what others have is read"


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


def test_password_is_in_no_argument() -> None:
    pods = json.loads(kubectl("-n", SYSTEM, "get", "pods", "-o", "json"))["items"]
    assert {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods} >= {"rcg-mlflow", "rcg-postgres"}
    for secret in ("local-postgres", MLFLOW_PASSWORD, cluster_rig.MLFLOW_ADMIN[1], "local-flask-key"):
        assert secret not in json.dumps([pod["spec"] for pod in pods])


def test_database_is_postgresql() -> None:
    query = "select count(*) from experiments"
    answer = kubectl(
        "-n", SYSTEM, "exec", "rcg-postgres-0", "--", "psql", "-U", "postgres", "-d", "mlflow", "-Atc", query
    )
    assert int(answer) >= 1
    assert cluster_rig.resource("pvc", "data-rcg-postgres-0", SYSTEM)["status"]["phase"] == "Bound"
