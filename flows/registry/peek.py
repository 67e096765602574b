"""A look at the registry. A sqlite database is read directly: importing MLflow takes three seconds."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.registry.references import DIGEST
from flows.tracking.client import mlflow_errors, open_client
from flows.tracking.record import SQLITE, Tracking, check_database


@dataclass(frozen=True)
class Registered:
    """All that the registry has under one name; empty when it has nothing."""

    name: str
    tags: Mapping[int, Mapping[str, str]]
    """Of each version."""
    aliases: Mapping[str, int]

    def describe(self, alias: str) -> str:
        """One line on the version that an alias points to."""
        if alias not in self.aliases:
            return f"no {alias} yet"
        number = self.aliases[alias]
        tags = self.tags[number]
        metrics = [f"{key.removeprefix('rcg.metric.')} {tags[key]}" for key in sorted(tags) if _is_metric(key)]
        bundle = tags.get(DIGEST, "unknown")[:10]
        return "  ".join([f"models:/{self.name}@{alias} is version {number}, bundle {bundle}", *metrics])


def _is_metric(key: str) -> bool:
    return key.startswith("rcg.metric.")


def look(tracking: Tracking, name: str) -> Registered:
    """Makes no database where there is none. MLflow is asked where the tables are not as expected, or busy.

    Raises: ConfigError, RetryableError.
    """
    if tracking.uri.startswith(SQLITE):
        check_database(tracking.uri)
        try:
            return _read(Path(tracking.uri.removeprefix(SQLITE)), name)
        except sqlite3.Error:
            pass
    client = open_client(tracking.uri)
    with mlflow_errors(tracking.uri):
        versions = client.search_model_versions(f"name = '{name}'")
        models: list[Any] = list(client.search_registered_models(f"name = '{name}'"))
    aliases = models[0].aliases if models else {}
    return Registered(
        name, {int(v.version): dict(v.tags) for v in versions}, {alias: int(n) for alias, n in aliases.items()}
    )


def _read(database: Path, name: str) -> Registered:
    """Raises: sqlite3.Error."""
    if not database.exists():
        return Registered(name, {}, {})
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
        tags: dict[int, dict[str, str]] = {
            int(number): {}
            for (number,) in connection.execute(
                "SELECT version FROM model_versions WHERE name = ? AND current_stage != 'Deleted_Internal'", (name,)
            )
        }
        for number, key, value in connection.execute(
            "SELECT version, key, value FROM model_version_tags WHERE name = ?", (name,)
        ):
            if number in tags:
                tags[number][key] = value
        aliases = connection.execute("SELECT alias, version FROM registered_model_aliases WHERE name = ?", (name,))
        return Registered(name, tags, {alias: int(number) for alias, number in aliases if number in tags})
