"""MLflow's database with its tables. Making them takes more than a second, so each process makes them once."""

import functools
import tempfile
from pathlib import Path

from flows.settings import TrackingSettings
from flows.tracking import Tracking, resolve_tracking
from flows.tracking.client import open_client

_NAME = "mlflow.db"
URI = f"sqlite:///{_NAME}"
"""As RCG_MLFLOW_URI says it: below the project's folder."""


def make_database(folder: Path) -> None:
    """An empty mlflow.db."""
    (folder / _NAME).write_bytes(_empty())


def make_tracking(folder: Path) -> Tracking:
    """Tracking into an empty mlflow.db of the folder."""
    make_database(folder)
    found = resolve_tracking(TrackingSettings(mlflow_uri=URI), folder)
    assert found is not None
    return found


@functools.cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, _NAME)
        open_client(f"sqlite:///{path}").search_experiments()
        return path.read_bytes()
