"""The model registry: bundles become versions of one registered model, where they lie; references become folders."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from components.errors import ArtifactError, ConfigError, MissingError
from components.store import open_store
from components.store.base import Store
from flows.runs.records import CommittedRun
from flows.tracking.client import mlflow_errors, numbers, open_client
from flows.tracking.record import Tracking
from flows.tracking.writer import replay

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

CHALLENGER = "challenger"
_DIGEST = "rcg.bundle_digest"
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
        _check_loads(store, run)
        facts = _facts(store, run)
        with mlflow_errors(tracking.uri):
            version = _create(client, name, source, run, {**tags, **facts})
    with mlflow_errors(tracking.uri):
        client.set_registered_model_alias(name, CHALLENGER, version)
    replay(tracking.state, wait_s=_PATIENCE_S)  # what fails stays pending
    return f"models:/{name}/{version} ({CHALLENGER})"


def bundle_uri(store: Store, run: CommittedRun) -> str:
    """The folder in the store that is the bundle. Raises: ArtifactError when its files do not lie together."""
    folders = {key.removesuffix(f"/{name}") for name, key in run.keys.items()}
    if len(folders) != 1 or "MLmodel" not in run.keys:
        raise ArtifactError("this run is no bundle in one folder", got=run.prefix, fix="rcg run bundle")
    return f"{store.uri.rstrip('/')}/{folders.pop()}"


def _find(client: "MlflowClient", name: str, digest: str) -> str | None:
    """The version that is this bundle, unless its folder was on this machine and is gone."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{_DIGEST}` = '{digest}'")
    usable = [int(v.version) for v in found if (path := _local(str(v.source))) is None or (path / "MLmodel").is_file()]
    return str(max(usable)) if usable else None


def _local(source: str) -> Path | None:
    """The folder, for a source on this machine."""
    parts = urlsplit(source)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _create(client: "MlflowClient", name: str, source: str, run: CommittedRun, tags: Mapping[str, str]) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="RCG bundles; see their rcg.* tags")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    named = {f"rcg.{key}": value[:_VALUE_CHARS] for key, value in tags.items()} | {_DIGEST: run.digest}
    try:
        return str(client.create_model_version(name, source, tags=named).version)
    except MlflowException as error:
        if "Invalid model version source" in str(error):
            raise ConfigError(
                "this MLflow server cannot reach a store on this machine", got=source,
                expected="a store that it can read, e.g. s3://…",
                fix="set RCG_STORE to a shared store (`rcg data copy --from` fills it), or leave RCG_MLFLOW_URI unset",
            ) from error  # fmt: skip
        raise


def _facts(store: Store, run: CommittedRun) -> dict[str, str]:
    """Version tags: where the bundle came from, and its headline metrics."""
    lineage = json.loads(store.get(run.keys["lineage.json"]))
    metrics = numbers(lineage["parents"].get("evaluate", {}).get("metrics", {}))
    facts = {"fingerprint": run.fingerprint, "run": f"{store.uri}/{run.prefix}"}
    facts |= {f"content.{stage}": parent["content"] for stage, parent in lineage["parents"].items()}
    return facts | {f"metric.{key}": f"{metrics[key]:.6g}" for key in _HEADLINE if key in metrics}


def _check_loads(store: Store, run: CommittedRun) -> None:
    """Load the registered bytes and draw an image. Raises: ArtifactError."""
    from components.rcg import RCG

    with _folder_of(store, run) as folder:
        rcg = RCG.load(folder)
        rcg.sample(1, rcg.card.sampling.seed)


@contextmanager
def _folder_of(store: Store, run: CommittedRun) -> Iterator[Path]:
    local = store.local_path(run.keys["MLmodel"])
    if local is not None:
        yield local.parent
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name, key in run.keys.items():
            Path(scratch, name).parent.mkdir(parents=True, exist_ok=True)
            store.download(key, Path(scratch, name))
        yield Path(scratch)


def resolve(reference: str, tracking: Tracking | None, cache: Path = Path(".rcg/models")) -> Path:
    """A local bundle folder for `models:/name@alias`, `models:/name/3` or a path. A remote bundle is fetched once.

    Raises: MissingError for an alias, version or folder that does not exist, ArtifactError for a model of another kind.
    """
    if not reference.startswith("models:"):
        return _checked(Path(reference), reference)
    match = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", reference)
    if match is None:
        raise ConfigError(
            "not a model reference", got=reference, expected="models:/name@alias, models:/name/3 or a folder"
        )
    if tracking is None:
        raise ConfigError(
            "the registry is switched off", got="RCG_MLFLOW_URI=off", fix="unset RCG_MLFLOW_URI, or name a folder"
        )
    version = _lookup(tracking, match[1], match[2], match[3])
    source = str(version.source)
    digest = version.tags.get(_DIGEST)
    if digest is None:
        raise ArtifactError(
            "the model was not registered by rcg",
            got=f"{reference} -> {source}",
            fix="name one that `rcg register` made",
        )
    return _checked(_localized(source, cache / digest), reference)


def _lookup(tracking: Tracking, name: str, alias: str | None, number: str | None) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    client = open_client(tracking.uri)
    with mlflow_errors(tracking.uri):
        try:
            if alias is not None:
                return client.get_model_version_by_alias(name, alias)
            return client.get_model_version(name, str(number))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                asked = f"@{alias}" if alias else f"/{number}"
                raise MissingError(
                    "no such model in the registry",
                    got=f"models:/{name}{asked} in {tracking.uri}",
                    expected=_known(client, name),
                    fix="`rcg register` makes models:/name@challenger of artifacts/bundle",
                ) from error
            raise


def _known(client: "MlflowClient", name: str) -> str:
    """What there is under the name, for an error message."""
    models: list[Any] = list(client.search_registered_models(f"name = '{name}'"))
    if not models:
        return f"no model named {name} is registered"
    aliases = ", ".join(f"@{alias}" for alias in sorted(models[0].aliases)) or "no alias"
    versions = client.search_model_versions(f"name = '{name}'")
    return f"{aliases}; versions 1..{max((int(v.version) for v in versions), default=0)}"


def _localized(source: str, target: Path) -> Path:
    """The bundle on this machine: where it lies, or fetched below `target`."""
    folder = _local(source)
    if folder is not None:
        return folder
    if not target.is_dir():
        head, _, below = source.rpartition("/runs/")
        store = open_store(head)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            fresh = Path(scratch, "bundle")
            for info in store.list(f"runs/{below}"):
                path = fresh / info.key.removeprefix(f"runs/{below}/")
                path.parent.mkdir(parents=True, exist_ok=True)
                store.download(info.key, path)
            fresh.rename(target)
    return target


def _checked(folder: Path, reference: str) -> Path:
    if not folder.is_dir():
        raise MissingError(
            "the bundle is not there", got=f"{reference} -> {folder}", fix="`dvc pull artifacts/bundle`, or `rcg repro`"
        )
    if not (folder / "rcg.json").is_file():
        raise ArtifactError(
            "not a bundle",
            got=f"{reference} -> {folder}",
            expected="a folder with rcg.json",
            fix="name artifacts/bundle",
        )
    return folder


def describe_alias(tracking: Tracking, name: str, alias: str) -> str:
    """One line for `rcg status`. Raises: MissingError, ConfigError, RetryableError."""
    version = _lookup(tracking, name, alias, None)
    digest = version.tags.get(_DIGEST, "unknown")
    metrics = [
        f"{k.removeprefix('rcg.metric.')} {v}" for k, v in sorted(version.tags.items()) if k.startswith("rcg.metric.")
    ]
    return "  ".join([f"models:/{name}@{alias} is version {version.version}, bundle {digest[:10]}", *metrics])
