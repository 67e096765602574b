"""What is being retrained, in the store: a snapshot of the collection with its resolved params, until it is closed.

retrain/current.json                    the journal: created conditionally, then replaced by compare-and-swap
retrain/<key>/{collection.lock,params.yaml}   what it is about; written before the journal names it
"""

from typing import Literal

from components.store.base import Prefix, Store
from components.store.cell import Cell
from flows.identity.artifact import SCHEMA, Commit, Millis, Record, Sha256

CURRENT = "current.json"
End = Literal["promoted", "refused", "held", "unusable"]


class Journal(Record):
    """retrain/current.json."""

    schema_version: int
    key: Sha256
    """Digest of the collection, the params and the commit that it all started from."""
    base: Commit
    """The commit that the branch starts at."""
    target: str
    """The branch to fast-forward in the end."""
    n_new: int
    """Images that the snapshot has and the base commit has not."""
    chunks: list[str]
    """Chunks of the collection that are new."""
    why: list[str]
    """How the params were resolved, for people."""
    who: str
    time_ms: Millis
    end: End | None
    """None: under way."""
    told: str | None
    """The outcome, in words."""

    @property
    def branch(self) -> str:
        return f"retrain/{self.key[:10]}"


class Journals:
    """The one journal of a store."""

    def __init__(self, store: Store) -> None:
        self._folder = Prefix(store, "retrain")
        self._current = Cell(self._folder, CURRENT)

    def read(self) -> tuple[Journal | None, str | None]:
        """The journal, open or closed, and the etag to replace it."""
        found = self._current.read()
        return (None, None) if found is None else (Journal.parse(found[0], f"{self._folder.uri}/{CURRENT}"), found[1])

    def open(self, journal: Journal, files: dict[str, bytes]) -> None:
        """Raises: ConflictError when somebody else has opened one."""
        _, etag = self.read()
        for name, data in files.items():
            self._folder.put(f"{journal.key}/{name}", data)
        self._current.replace(journal.to_json(), etag)

    def file(self, journal: Journal, name: str) -> bytes:
        return self._folder.get(f"{journal.key}/{name}")

    def close(self, journal: Journal, end: End, told: str) -> None:
        """Idempotent."""
        present, etag = self.read()
        if present is not None and present.key == journal.key and present.end is None:
            self._current.replace(journal.model_copy(update={"end": end, "told": told}).to_json(), etag)


def new_journal(**fields: object) -> Journal:
    """An open one."""
    return Journal.model_validate({"schema_version": SCHEMA, "end": None, "told": None} | fields)
