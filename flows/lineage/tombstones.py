"""What was erased from a store, one tombstone per picture. Written by `rcg forget`, read by `rcg lineage`."""

from components.store.base import Store
from flows.identity.artifact import Millis, Record


class Tombstone(Record):
    """forgotten/<sha256>.json."""

    schema_version: int
    sha256: str
    keys: list[str]
    """Names in the source."""
    collections: list[str]
    """Content digests of the collections that list it."""
    models: list[str]
    """Those that were trained on it: they still are."""
    erased: list[str]
    """Keys of the objects that were deleted."""
    who: str
    time_ms: Millis


def tombstones(store: Store) -> list[Tombstone]:
    """Every picture that was forgotten."""
    return [Tombstone.parse(store.get(info.key), info.key) for info in store.list("forgotten")]
