"""A look at an alias for `rcg status`. A sqlite registry is read directly: importing MLflow takes three seconds."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from components.errors import MissingError
from flows.registry.references import DIGEST, find_version
from flows.tracking.record import SQLITE, Tracking, check_database


def describe_alias(tracking: Tracking, name: str, alias: str) -> str:
    """One line on the version that an alias points to. Raises: MissingError, ConfigError, RetryableError."""
    number, tags = _look(tracking, name, alias)
    metrics = [
        f"{key.removeprefix('rcg.metric.')} {tags[key]}" for key in sorted(tags) if key.startswith("rcg.metric.")
    ]
    bundle = tags.get(DIGEST, "unknown")[:10]
    return "  ".join([f"models:/{name}@{alias} is version {number}, bundle {bundle}", *metrics])


def _look(tracking: Tracking, name: str, alias: str) -> tuple[int, Mapping[str, str]]:
    """(number, tags) of the version. MLflow is asked where the database is busy or its tables are not as expected."""
    if tracking.uri.startswith(SQLITE):
        check_database(tracking.uri)
        try:
            return _read(Path(tracking.uri.removeprefix(SQLITE)), name, alias)
        except sqlite3.Error:
            pass
    version = find_version(tracking, name, alias, None)
    return int(version.version), version.tags


def _read(database: Path, name: str, alias: str) -> tuple[int, dict[str, str]]:
    """Raises: MissingError, also where there is no database yet; sqlite3.Error."""
    missing = MissingError("no such model in the registry", got=f"models:/{name}@{alias} in {database}")
    if not database.exists():
        raise missing
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
        found = connection.execute(
            "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?", (name, alias)
        ).fetchone()
        if found is None:
            raise missing
        tags = connection.execute(
            "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", (name, found[0])
        ).fetchall()
    return int(found[0]), dict(tags)
