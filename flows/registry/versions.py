"""Bundles become versions of one registered model, where they lie."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import ArtifactError, ConfigError
from components.store.base import Store
from flows.registry.references import DIGEST, local_folder
from flows.runs.ancestry import keep_context
from flows.runs.records import CommittedRun, read_json_file
from flows.runs.transfer import pull
from flows.tracking.client import mlflow_errors, numbers, open_client
from flows.tracking.record import Tracking
from flows.tracking.writer import replay

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHALLENGER = "challenger"
_HEADLINE = ("fd", "fd_floor", "precision", "recall", "memorization_ratio", "representation_fd")
_VALUE_CHARS = 500
_PATIENCE_S = 20.0


def register(tracking: Tracking, store: Store, run: CommittedRun, *, name: str, tags: Mapping[str, str]) -> str:
    """Make the bundle a version of model `name`, without copying it, and let `challenger` point at it.

    The same bundle is registered once; the alias moves to it again. MLflow also catches up on runs here. Returns e.g.
    "models:/rcg/3 (challenger)".
    Raises: ArtifactError when the bundle cannot be loaded, ConfigError or RetryableError when MLflow cannot be used.
    """
    client = open_client(tracking.uri)
    source = bundle_uri(store, run)
    with mlflow_errors(tracking.uri):
        version = _find(client, name, run.digest)
    if version is None:
        keep_context(store, run)
        _check_loads(store, run)
        facts = _facts(store, run)
        with mlflow_errors(tracking.uri):
            version = _create(client, name, source, run, {**tags, **facts})
    with mlflow_errors(tracking.uri):
        client.set_registered_model_alias(name, CHALLENGER, version)
    replay(tracking.state, wait_s=_PATIENCE_S, uri=tracking.uri)  # what fails stays pending
    return f"models:/{name}/{version} ({CHALLENGER})"


def bundle_uri(store: Store, run: CommittedRun) -> str:
    """The folder in the store that is the bundle. Raises: ArtifactError when its files do not lie together."""
    folders = {key.removesuffix(f"/{name}") for name, key in run.keys.items()}
    if len(folders) != 1 or "MLmodel" not in run.keys:
        raise ArtifactError("this run is no bundle in one folder", got=run.prefix, fix="rcg run bundle")
    return f"{store.uri.rstrip('/')}/{folders.pop()}"


def _find(client: "MlflowClient", name: str, digest: str) -> str | None:
    """The version that is this bundle, unless its folder was on this machine and is gone."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{DIGEST}` = '{digest}'")
    usable = [
        int(v.version) for v in found if (path := local_folder(str(v.source))) is None or (path / "MLmodel").is_file()
    ]
    return str(max(usable)) if usable else None


def _create(client: "MlflowClient", name: str, source: str, run: CommittedRun, tags: Mapping[str, str]) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="RCG bundles; see their rcg.* tags")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    named = {f"rcg.{key}": value[:_VALUE_CHARS] for key, value in tags.items()} | {DIGEST: run.digest}
    try:
        return str(client.create_model_version(name, source, tags=named).version)
    except MlflowException as error:
        if "Invalid model version source" in str(error):
            raise ConfigError(
                "this MLflow server cannot reach a store on this machine",
                got=source,
                expected="a store that it can read, e.g. s3://…",
                fix="set RCG_STORE to a shared store (`rcg data copy --from` fills it), or leave RCG_MLFLOW_URI unset",
            ) from error
        raise


def _facts(store: Store, run: CommittedRun) -> dict[str, str]:
    """Version tags: where the bundle came from, and its headline metrics, or that its judge was blind."""
    lineage = read_json_file(store, run, "lineage.json")
    metrics = numbers(lineage["parents"].get("evaluate", {}).get("metrics", {}))
    facts = {"fingerprint": run.fingerprint, "run": f"{store.uri}/{run.prefix}"}
    facts |= {f"content.{stage}": parent["content"] for stage, parent in lineage["parents"].items()}
    shown = ("judge_blind",) if metrics.get("judge_blind") else _HEADLINE
    return facts | {f"metric.{key}": f"{metrics[key]:.6g}" for key in shown if key in metrics}


def _check_loads(store: Store, run: CommittedRun) -> None:
    """Load the registered bytes and sample an image. Raises: ArtifactError."""
    from components.bundle.bundle import Bundle
    from components.bundle.request import Request

    with _folder_of(store, run) as folder:
        bundle = Bundle.load(folder)
        bundle.sample(Request(seed=bundle.card.sampling.seed))


@contextmanager
def _folder_of(store: Store, run: CommittedRun) -> Iterator[Path]:
    local = store.local_path(run.keys["MLmodel"])
    if local is not None:
        yield local.parent
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        pull(store, run, Path(scratch))
        yield Path(scratch)
