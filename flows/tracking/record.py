"""One stage run as it is logged to MLflow, and where MLflow is: plain data, read by the writer process."""

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConfigError
from components.printable import redacted
from flows.settings import TrackingSettings

if TYPE_CHECKING:
    from flows.runs.records import Spec

STATE_DIR = Path(".rcg/tracking")
SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Tracking:
    """An MLflow server or database, with every path absolute: the writer runs elsewhere.

    `artifacts` is where a new experiment keeps pictures (None: the server decides), `state` the folder of requests.
    """

    uri: str
    experiment: str
    artifacts: str | None
    state: Path


@dataclass(frozen=True)
class StageRecord:
    """One stage run as one pipeline sees it. No torch is imported to read it: the writer must start quickly."""

    pipeline: str
    """Pipeline identity, see pipeline_id."""
    stage: str
    fingerprint: str
    store: str
    """URI of the store that holds runs/<stage>/<fingerprint>."""
    reused: bool
    """True when this pipeline found the run finished instead of doing the work."""
    params: Mapping[str, Any]
    """The stage's own section of params.yaml."""
    pipeline_params: Mapping[str, Any]
    """All sections, for the parent run."""
    inputs: Mapping[str, str]
    """Parent stage (or collection.lock) -> content digest."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """More tags, e.g. git_commit; logged as rcg.<name>."""

    @classmethod
    def of(
        cls,
        spec: "Spec",
        *,
        pipeline: str,
        pipeline_params: Mapping[str, Any],
        store: str,
        reused: bool,
        tags: Mapping[str, str],
    ) -> "StageRecord":
        """The record of the run that `spec` asks for."""
        identity = spec.identity
        return cls(
            pipeline=pipeline,
            stage=spec.stage,
            fingerprint=spec.fingerprint,
            store=store,
            reused=reused,
            params=identity.params,
            pipeline_params=pipeline_params,
            inputs=identity.inputs,
            tags=tags,
        )

    @property
    def prefix(self) -> str:
        return f"runs/{self.stage}/{self.fingerprint}"

    def key(self, tracking: Tracking) -> str:
        """Name of the request: equal for every attempt at the same stage of the same pipeline."""
        return digest_of(redacted(tracking.uri), self.pipeline, self.stage, self.fingerprint)[:20]


def to_json(tracking: Tracking, record: StageRecord) -> str:
    """A request on disk; it holds no password."""
    place = asdict(tracking) | {"state": str(tracking.state), "uri": redacted(tracking.uri)}
    return json.dumps({"tracking": place, "record": asdict(record)}, sort_keys=True, indent=1)


def from_json(text: str, uri: str) -> tuple[Tracking, StageRecord]:
    """What to_json() wrote; of the same server, `uri` has the password."""
    values = json.loads(text)
    tracking = values["tracking"]
    found = Tracking(**tracking | {"state": Path(tracking["state"])})
    return replace(found, uri=uri) if redacted(uri) == found.uri else found, StageRecord(**values["record"])


def pipeline_id(params: Mapping[str, Any], collection_lock: str, code_digest: str) -> str:
    """Identity of a whole pipeline: sha256 over canonical params, collection.lock and the code digest."""
    return digest_of(json.dumps(params, sort_keys=True, separators=(",", ":")), collection_lock, code_digest)


def digest_of(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def resolve_tracking(settings: TrackingSettings, root: Path) -> Tracking | None:
    """Absolute places; None for `off`. A sqlite database keeps its pictures in mlartifacts beside it."""
    uri = settings.mlflow_uri
    if uri == "off":
        return None
    root = root.absolute()
    artifacts = None
    if uri.startswith(SQLITE):
        database = root / uri.removeprefix(SQLITE)
        uri, artifacts = f"{SQLITE}{database}", (database.parent / "mlartifacts").as_uri()
    elif "://" not in uri:
        raise ConfigError(
            "mlflow_uri is not a URI",
            got=uri,
            expected="sqlite:///file.db, http(s)://host:port or off",
            fix="set RCG_MLFLOW_URI",
        )
    return Tracking(uri=uri, experiment=settings.mlflow_experiment, artifacts=artifacts, state=root / STATE_DIR)


def check_database(uri: str) -> None:
    """Refuse a sqlite database whose schema the installed MLflow does not know, without importing MLflow.

    Raises: ConfigError. Other URIs and absent files pass.
    """
    path = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or not path.exists():
        return
    found, known = _revision(path), _known_revisions()
    if found is not None and found not in known:
        raise ConfigError(
            "the MLflow database was made by a newer MLflow than the one installed",
            got=f"{path} with schema revision {found}",
            expected=f"one of the {len(known)} revisions that this version knows",
            fix="install that newer version, or point RCG_MLFLOW_URI at another database",
        )


def _revision(path: Path) -> str | None:
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError:  # no such table: new and empty, or busy; MLflow itself decides
        return None
    except sqlite3.DatabaseError as error:
        raise ConfigError(
            "the MLflow database is not a database", got=f"{path}: {error}", fix="move the file away; a new one is made"
        ) from error
    return str(row[0]) if row else None


def _known_revisions() -> set[str]:
    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise ConfigError("mlflow is not installed", fix="`make setup`, or set RCG_MLFLOW_URI=off")
    versions = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    pattern = re.compile(r"^revision(?:: str)? = ['\"](\w+)['\"]", re.MULTILINE)
    return {match[1] for file in versions.glob("*.py") if (match := pattern.search(file.read_text()))}
