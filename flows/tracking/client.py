"""The part of tracking that imports mlflow: find or make runs, and log to them so that a repetition changes nothing."""

import json
import logging
import math
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from components.errors import ConfigError, RetryableError
from flows.runs.events import Event
from flows.tracking.record import StageRecord, Tracking, check_database

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient
    from PIL.Image import Image

_BATCH = 100
"""Params and tags per request that every MLflow server accepts."""
_VALUE_CHARS = 500
_IMAGE_FILE = re.compile(r"(.+)\+step\+(\d+)\+")
_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def probe(uri: str, timeout_s: float = 2) -> None:
    """Cheap look whether MLflow can be used, without importing it.

    Raises: RetryableError when nothing listens there, or at the proxy that HTTPS_PROXY names for it; ConfigError for a
    database that this MLflow cannot read.
    """
    check_database(uri)
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        asked = urlsplit(proxy) if proxy and "://" in proxy else parts
        port = asked.port or (443 if asked.scheme == "https" else 80)
        try:
            socket.create_connection((asked.hostname or "", port), timeout=timeout_s).close()
        except OSError as error:
            raise _unreachable(uri, error) from error


def _unreachable(uri: str, error: object) -> RetryableError:
    return RetryableError(
        "MLflow does not answer", got=f"{uri}: {error}", fix="start it, or correct RCG_MLFLOW_URI (`off` to do without)"
    )


def _untrusted(uri: str) -> ConfigError:
    return ConfigError(
        "the certificate of MLflow's server is not trusted",
        got=urlsplit(uri).hostname,
        fix="set REQUESTS_CA_BUNDLE to a file with the certificate of who signed it",
    )


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn what mlflow and its transports raise into errors for a person."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (requests.exceptions.RequestException, OSError) as error:
        raise (_untrusted(uri) if _CERTIFICATE in str(error) else _unreachable(uri, error)) from error
    except MlflowException as error:
        text = str(error)
        if _CERTIFICATE in text:
            raise _untrusted(uri) from error
        if "out-of-date database schema" in text:
            raise ConfigError(
                "the MLflow database has another schema than the installed MLflow",
                got=text.split(". ", 1)[0],
                fix=f"back it up, then run `mlflow db upgrade {uri}`",
            ) from error
        if error.error_code in ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR") or "API request to" in text:
            raise _unreachable(uri, text.splitlines()[0]) from error
        raise ConfigError("MLflow refused the request", got=text.splitlines()[0]) from error


def open_client(uri: str) -> "MlflowClient":
    """Raises: RetryableError or ConfigError, named, when MLflow cannot be used."""
    probe(uri)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with mlflow_errors(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


class StageRuns:
    """The MLflow side of one StageRecord: its parent run and its child run, found by tags."""

    def __init__(self, tracking: Tracking, record: StageRecord, started_ms: int | None = None) -> None:
        self.record, self.uri = record, tracking.uri
        self._started_ms = started_ms
        self.client = open_client(tracking.uri)
        with mlflow_errors(self.uri):
            self.experiment = self._experiment(tracking)
            self.parent = self._find_or_create(self._parent_tags(), f"rcg {record.pipeline[:10]}")
            self.run_id = self._find_or_create(self._child_tags(), record.stage)
        self._known: dict[str, set[int]] = {}
        self._images: set[tuple[str, int]] | None = None
        self._waiting: list[Metric] = []

    def _experiment(self, tracking: Tracking) -> str:
        from mlflow.exceptions import MlflowException

        for _ in range(2):
            found = self.client.get_experiment_by_name(tracking.experiment)
            if found is not None and found.lifecycle_stage == "deleted":  # its name stays taken
                raise ConfigError(
                    "the MLflow experiment was deleted",
                    got=f"{tracking.experiment}, experiment {found.experiment_id}",
                    fix=f"`mlflow experiments restore --experiment-id {found.experiment_id}` (it reads "
                    "MLFLOW_TRACKING_URI), or name another one: RCG_MLFLOW_EXPERIMENT",
                )
            if found is not None:
                return str(found.experiment_id)
            try:
                return self.client.create_experiment(tracking.experiment, artifact_location=tracking.artifacts)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was first
                    raise
        raise RetryableError("others make and delete the MLflow experiment all the time", got=tracking.experiment)

    def _parent_tags(self) -> dict[str, str]:
        return {"rcg.pipeline": self.record.pipeline, "rcg.role": "pipeline"}

    def _child_tags(self) -> dict[str, str]:
        return {
            "rcg.pipeline": self.record.pipeline,
            "rcg.role": "stage",
            "rcg.stage": self.record.stage,
            "rcg.fingerprint": self.record.fingerprint,
            "mlflow.parentRunId": self.parent,
        }

    def _search(self, tags: Mapping[str, str]) -> "list[Run]":
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return list(
            self.client.search_runs(
                [self.experiment], query, order_by=["attributes.start_time ASC", "attributes.run_id ASC"]
            )
        )

    def _find_or_create(self, tags: dict[str, str], name: str) -> str:
        """The oldest run with the tags; of two made at the same moment, both makers keep the older."""
        searched = {k: v for k, v in tags.items() if k != "mlflow.parentRunId"}
        found = self._search(searched)
        if not found:
            made = self.client.create_run(self.experiment, self._started_ms, tags, name).info.run_id
            found = self._search(searched)
            if found and found[0].info.run_id != made:
                self.client.delete_run(made)
        return str(found[0].info.run_id)

    def describe(self) -> None:
        """Params, tags and inputs; equal ones are accepted again."""
        record = self.record
        tags = {f"rcg.{k}": v for k, v in record.tags.items()} | {"rcg.store": f"{record.store}/{record.prefix}"}
        if record.reused and "rcg.reused_from" not in self._tags():
            tags["rcg.reused_from"] = self._origin() or f"{record.store}/{record.prefix}"
        with mlflow_errors(self.uri):
            self._log_params(self.parent, flatten(record.pipeline_params))
            self._log_params(self.run_id, flatten(record.params))
            self._set_tags(self.run_id, tags)
            inputs = self.client.get_run(self.run_id).inputs
            if inputs is None or not inputs.dataset_inputs:
                self._log_inputs()

    def _tags(self) -> Mapping[str, str]:
        with mlflow_errors(self.uri):
            return dict(self.client.get_run(self.run_id).data.tags)

    def _origin(self) -> str | None:
        """The child run, of whatever pipeline, that tracked the work itself."""
        tags = {"rcg.role": "stage", "rcg.stage": self.record.stage, "rcg.fingerprint": self.record.fingerprint}
        with mlflow_errors(self.uri):
            others = [
                r for r in self._search(tags) if r.info.run_id != self.run_id and "rcg.reused_from" not in r.data.tags
            ]
        return others[0].info.run_id if others else None

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        logged = self.client.get_run(run_id).data.params
        new = [Param(k, v) for k, v in params.items() if k not in logged]
        for chunk in _chunks(new, _BATCH):
            self.client.log_batch(run_id, params=chunk)

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        for chunk in _chunks([RunTag(k, v) for k, v in tags.items()], _BATCH):
            self.client.log_batch(run_id, tags=chunk)

    def _log_inputs(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(name=name, digest=digest[:36], source_type="rcg-store", source=json.dumps({"sha256": digest})),
                [InputTag("mlflow.data.context", "input")],
            )
            for name, digest in self.record.inputs.items()
        ]
        if inputs:
            self.client.log_inputs(self.run_id, inputs)

    def log_events(self, events: Iterable[Event]) -> None:
        """Log what MLflow does not hold yet by (metric, step)."""
        for event in events:
            self._log(event.metrics, event.step, event.time_ms)
        self._flush()

    def _log(self, metrics: Mapping[str, float], step: int, time_ms: int) -> None:
        from mlflow.entities import Metric

        for name, value in metrics.items():
            if step not in self._steps(name):
                self._steps(name).add(step)
                self._waiting.append(Metric(name, float(value), time_ms, step))

    def _flush(self) -> None:
        with mlflow_errors(self.uri):
            for chunk in _chunks(self._waiting, 5 * _BATCH):
                self.client.log_batch(self.run_id, metrics=chunk)
        self._waiting = []

    def _steps(self, name: str) -> set[int]:
        if name not in self._known:
            with mlflow_errors(self.uri):
                self._known[name] = {m.step for m in self.client.get_metric_history(self.run_id, name)}
        return self._known[name]

    def has_image(self, name: str, step: int) -> bool:
        """Whether log_image() logged it before, in this process or another."""
        if self._images is None:
            with mlflow_errors(self.uri):
                files = self.client.list_artifacts(self.run_id, "images")
            matches = (_IMAGE_FILE.match(Path(file.path).name) for file in files)
            self._images = {(match[1], int(match[2])) for match in matches if match}
        return (_image_name(name), step) in self._images

    def log_image(self, name: str, picture: "Image", step: int) -> None:
        """A picture with a step slider in the UI."""
        with mlflow_errors(self.uri):
            self.client.log_image(self.run_id, picture, key=name, step=step)
        if self._images is not None:
            self._images.add((_image_name(name), step))

    def log_file(self, path: Path, folder: str) -> None:
        with mlflow_errors(self.uri):
            self.client.log_artifact(self.run_id, str(path), folder)

    def log_results(self, metrics: Mapping[str, Any], time_ms: int) -> None:
        """Final metrics; one named like a step metric becomes final_<name>. Evaluation also shows on the parent."""
        finals = numbers(metrics)
        curves = {name for name in finals if self._steps(name) - {0}}
        named = {f"final_{name}" if name in curves else name: value for name, value in finals.items()}
        self._log(named, 0, time_ms)
        self._flush()
        if self.record.stage == "evaluate":
            with mlflow_errors(self.uri):
                for name, value in named.items():
                    self.client.log_metric(self.parent, name, value, timestamp=time_ms, step=0)

    def resume(self) -> None:
        with mlflow_errors(self.uri):
            for run_id in (self.parent, self.run_id):
                self.client.update_run(run_id, status="RUNNING")

    def end(self, status: str, tags: Mapping[str, str], ended_ms: int | None = None) -> None:
        """FINISHED, FAILED or KILLED; the parent goes on as long as one of its stages does."""
        with mlflow_errors(self.uri):
            self._set_tags(self.run_id, tags)
            self.client.set_terminated(self.run_id, status, ended_ms)
            siblings = [
                r.info.status for r in self._search({"rcg.pipeline": self.record.pipeline, "rcg.role": "stage"})
            ]
            if "RUNNING" not in siblings:
                worst = next((s for s in ("FAILED", "KILLED") if s in siblings), "FINISHED")
                self.client.set_terminated(self.parent, worst, ended_ms)


def flatten(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested params to dotted names; MLflow keeps text, cut where it is too long."""
    out: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= flatten(value, f"{above}{name}.")
        else:
            out[f"{above}{name}"] = (value if isinstance(value, str) else json.dumps(value))[:_VALUE_CHARS]
    return out


def numbers(values: Mapping[str, Any], above: str = "") -> dict[str, float]:
    """Nested metrics to dotted names; what is not a number is left out."""
    out: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= numbers(value, f"{above}{name}.")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            out[f"{above}{name}"] = float(value)
    return out


def _image_name(name: str) -> str:
    return name.replace("/", "~")  # as MLflow spells it in the file's name


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
