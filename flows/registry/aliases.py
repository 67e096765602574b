"""Versions of one registered model and the aliases that consumers follow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.errors import MissingError
from flows.registry.references import DIGEST, tagged_digest
from flows.tracking.client import mlflow_errors, open_client
from flows.tracking.record import Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, PREVIOUS = "champion", "previous-champion"
HOLD = "rcg.hold"
"""Tag of a version, or of the whole model: `true` keeps the gate from promoting it."""
_VALUE_CHARS = 500
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class Version:
    """One registered bundle."""

    number: int
    digest: str
    source: str
    tags: Mapping[str, str]


class Aliases:
    """The registry's side of a promotion. Every method raises RetryableError when MLflow does not answer."""

    def __init__(self, tracking: Tracking, name: str) -> None:
        self.name, self.uri = name, tracking.uri
        self._client = open_client(tracking.uri)

    def of(self, alias: str) -> Version | None:
        """None when the alias, or the model, is not there. Raises: ArtifactError for a model of another kind."""
        from mlflow.exceptions import MlflowException

        with mlflow_errors(self.uri):
            try:
                return self._version(self._client.get_model_version_by_alias(self.name, alias))
            except MlflowException as error:
                if error.error_code in _ABSENT:
                    return None
                raise

    def version(self, number: int) -> Version:
        """Raises: MissingError for a version that was deleted or never was, ArtifactError for one of another kind."""
        from mlflow.exceptions import MlflowException

        with mlflow_errors(self.uri):
            try:
                return self._version(self._client.get_model_version(self.name, str(number)))
            except MlflowException as error:
                if error.error_code not in _ABSENT:
                    raise
                raise MissingError(
                    f"the registry has no version {number} of {self.name}: deleted, or never registered",
                    got=self.uri,
                    fix="name another one; `rcg history` lists those that were champion",
                ) from error

    def all(self) -> list[Version]:
        """Every version that rcg registered, oldest first."""
        with mlflow_errors(self.uri):
            found = self._client.search_model_versions(f"name = '{self.name}'")
        return sorted((self._version(v) for v in found if DIGEST in v.tags), key=lambda version: version.number)

    def _version(self, found: "ModelVersion") -> Version:
        digest = tagged_digest(found.tags, f"models:/{self.name}/{found.version} -> {found.source}")
        return Version(int(found.version), digest, str(found.source), dict(found.tags))

    def point(self, alias: str, number: int | None) -> None:
        """Set the alias, or with None remove it."""
        with mlflow_errors(self.uri):
            if number is None:
                self._client.delete_registered_model_alias(self.name, alias)
            else:
                self._client.set_registered_model_alias(self.name, alias, str(number))

    def tag(self, number: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version; long values are cut."""
        with mlflow_errors(self.uri):
            for key, value in tags.items():
                self._client.set_model_version_tag(self.name, str(number), key, value[:_VALUE_CHARS])

    def held(self, version: Version) -> str | None:
        """What keeps the version from being promoted, if anything does."""
        if version.tags.get(HOLD, "").lower() == "true":
            return f"version {version.number} has the tag {HOLD}=true"
        with mlflow_errors(self.uri):
            tags = self._client.get_registered_model(self.name).tags
        return f"the model {self.name} has the tag {HOLD}=true" if tags.get(HOLD, "").lower() == "true" else None
