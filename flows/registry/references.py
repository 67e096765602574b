"""References become bundle folders: `models:/name@alias`, `models:/name/3`, or a path."""

import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from components.bundle.integrity import bundle_digest
from components.errors import ArtifactError, ConfigError, MissingError, TamperedError
from components.store import open_store
from components.store.base import check_key
from flows.identity.artifact import SHA256
from flows.tracking.client import mlflow_errors, open_client
from flows.tracking.record import Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_log = logging.getLogger(__name__)

DIGEST = "rcg.bundle_digest"
"""Tag of a version: the content digest of its bundle."""


def resolve(reference: str, tracking: Tracking | None, cache: Path) -> Path:
    """A local bundle folder for `models:/name@alias`, `models:/name/3` or a path; a remote bundle is kept in `cache`.

    Raises: MissingError for an alias, version or folder that does not exist, ArtifactError for a model of another kind,
    TamperedError for a registered bundle whose bytes have changed.
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
    digest = tagged_digest(version.tags, f"{reference} -> {source}")
    folder = local_folder(source)
    if folder is None:
        return _checked(_kept(source, cache / digest, digest), reference)
    found = bundle_digest(_checked(folder, reference))
    if found != digest:
        raise _altered(f"{reference} in {folder}", found, digest)
    return folder


def _altered(where: str, found: str, digest: str) -> TamperedError:
    return TamperedError(
        "the bundle is not the one that was registered",
        got=f"content {found} at {where}",
        expected=digest,
        fix="`rcg data copy --from` a store that has it intact; `rcg rollback` if it is the champion",
    )


def tagged_digest(tags: Mapping[str, str], where: str) -> str:
    """The bundle's digest by a version's tags: it becomes the name of a folder.

    Raises: ArtifactError for a version that has none, or something else in its place.
    """
    digest = tags.get(DIGEST, "")
    if re.fullmatch(SHA256, digest) is None:
        raise ArtifactError(
            "a version of the model was not registered by rcg",
            got=f"{where}, {DIGEST}: {digest or 'none'}",
            fix="name one that `rcg register` made, take the alias away from it, or register under another name "
            "(RCG_MODEL_NAME)",
        )
    return digest


def _lookup(tracking: Tracking, name: str, alias: str | None, number: str | None) -> "ModelVersion":
    """By alias or by number. Raises: MissingError naming the aliases and versions that exist."""
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
    """The aliases and versions under the name, for an error message."""
    models: list[Any] = list(client.search_registered_models(f"name = '{name}'"))
    if not models:
        return f"no model named {name} is registered"
    aliases = ", ".join(f"@{alias}" for alias in sorted(models[0].aliases)) or "no alias"
    versions = client.search_model_versions(f"name = '{name}'")
    return f"{aliases}; versions 1..{max((int(v.version) for v in versions), default=0)}"


def _kept(source: str, target: Path, digest: str) -> Path:
    """The bundle of a store elsewhere in `target`, fetched where it is not there yet or was damaged."""
    if target.is_dir() and bundle_digest(target) == digest:
        return target
    head, _, below = source.rpartition("/runs/")
    store = open_store(head)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True) as scratch:
        fresh = Path(scratch, "bundle")
        for info in store.list(f"runs/{below}"):
            path = fresh / check_key(info.key).removeprefix(f"runs/{below}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            store.download(info.key, path)
        if (found := bundle_digest(fresh)) != digest:
            raise _altered(source, found, digest)
        if target.is_dir():
            _log.warning("%s was damaged and is fetched anew", target)
            target.rename(Path(scratch, "damaged"))
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


def local_folder(source: str) -> Path | None:
    """The folder, for a source on this machine."""
    parts = urlsplit(source)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
