"""MLflow's REST API as the driver and the administrator use it, from outside of the cluster."""

import uuid
from dataclasses import dataclass
from typing import Any, Self

import requests

from tests.support.cluster_rig import MLFLOW_PASSWORD, MLFLOW_URI, MLFLOW_USER

API = "api/2.0/mlflow"


class Server:
    """A connection with somebody's password: the driver's, if nothing is said."""

    def __init__(self, user: str = MLFLOW_USER, password: str = MLFLOW_PASSWORD) -> None:
        self.session = requests.Session()
        self.session.auth = (user, password)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.session.request(method, f"{MLFLOW_URI}/{path}", timeout=30, **more)

    def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self.call(method, f"{API}/{path}", **more)
        answer.raise_for_status()
        return answer.json()


@dataclass(frozen=True)
class Note:
    """A run with one metric, in the database, and one file, in the bucket."""

    experiment: str
    run: str

    @classmethod
    def written(cls, server: Server) -> "Note":
        name = f"note-{uuid.uuid4().hex[:8]}"
        experiment = server.ask("POST", "experiments/create", json={"name": name})["experiment_id"]
        run = server.ask("POST", "runs/create", json={"experiment_id": experiment})["run"]["info"]
        note = cls(experiment, run["run_id"])
        metric = {"run_id": note.run, "key": "loss", "value": 0.25, "timestamp": 1, "step": 3}
        server.ask("POST", "runs/log-metric", json=metric)
        assert run["artifact_uri"] == f"mlflow-artifacts:/{experiment}/{note.run}/artifacts"
        assert server.call("PUT", note._path, data=b"kept").ok
        return note

    def read(self, server: Server) -> list[tuple[str, float, int]]:
        """Its metrics: (name, value, step)."""
        found = server.ask("GET", "runs/get", params={"run_id": self.run})["run"]["data"]
        return [(each["key"], each["value"], each["step"]) for each in found["metrics"]]

    def attached(self, server: Server) -> bytes:
        """Its file."""
        return server.call("GET", self._path).content

    @property
    def _path(self) -> str:
        return f"api/2.0/mlflow-artifacts/artifacts/{self.experiment}/{self.run}/artifacts/note.txt"
