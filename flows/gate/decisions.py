"""What was decided about models, in the store: the truth that the registry's aliases follow.

decisions/<model>/
    records/<number>.json   one gate decision each, created conditionally; never changed
    history.json            every champion there was, replaced by compare-and-swap; its last entry may still be pending
    lease.json attempts/    who is deciding now
"""

from collections.abc import Sequence
from typing import Any, Literal

from components.store.base import Prefix, Store
from components.store.cell import Cell
from flows.identity.artifact import SCHEMA, Millis, Record

Verdict = Literal["promoted", "refused"]
Action = Literal["promote", "rollback"]
EntryState = Literal["pending", "done", "void"]

_HISTORY = "history.json"


class Contestant(Record):
    """A version that was judged."""

    version: int
    digest: str
    """Content digest of its bundle."""
    collection: str
    """Content digest of the collect artifact that it was trained on."""
    metrics: dict[str, float]
    """What was measured: fd, fd_known, precision, recall, memorization_share(_pixels), precision_blind."""


class Interval(Record):
    """Challenger's Frechet distance minus champion's, on the same images, with its bootstrap interval."""

    value: float
    low: float
    high: float
    limit: float
    """The interval's upper end may not exceed it: margin times the champion's distance."""
    n_real: int


class Check(Record):
    """One condition of the gate."""

    name: str
    passed: bool
    text: str
    """The numbers, as a sentence."""


class Decision(Record):
    """One run of the gate: what went in, what came out, who and when."""

    schema_version: int
    number: int
    model: str
    verdict: Verdict
    question: str
    """Digest of all that goes into a decision: the same question has the same answer, and is not measured again."""
    challenger: Contestant
    champion: Contestant | None
    """None for the first model ever."""
    checks: list[Check]
    differences: dict[str, Interval]
    """`all` and `known` held-out images; empty for the first model."""
    thresholds: dict[str, Any]
    """Section gate of params.yaml."""
    protocol: dict[str, Any]
    """Collection, split, feature network: what makes the numbers of one decision comparable, and only those."""
    notes: list[str]
    who: str
    time_ms: Millis


class Entry(Record):
    """One change of the champion."""

    number: int
    action: Action
    version: int
    digest: str
    before: int | None
    """The champion until then."""
    decision: int
    """Number of the gate's decision; for a rollback that of the newest one by then."""
    who: str
    time_ms: Millis
    state: EntryState
    """pending: the registry may not know yet, and the next command tells it. void: given up, see `why`."""
    why: str | None


class History(Record):
    """history.json."""

    schema_version: int
    entries: list[Entry]

    @property
    def pending(self) -> Entry | None:
        return self.entries[-1] if self.entries and self.entries[-1].state == "pending" else None

    def champions(self) -> list[int]:
        """The champions that a rollback may return to, the present one last: a rollback takes what it left away."""
        stack: list[int] = []
        for entry in (e for e in self.entries if e.state != "void"):
            if entry.before is not None and stack[-1:] != [entry.before]:
                stack.append(entry.before)  # it was made champion by hand
            if entry.action == "rollback" and entry.version in stack:
                stack = stack[: len(stack) - stack[::-1].index(entry.version)]
            elif stack[-1:] != [entry.version]:
                stack.append(entry.version)
        return stack


class Decisions:
    """The decisions about one model. Conditional writes; who holds the lease writes alone."""

    def __init__(self, store: Store, model: str) -> None:
        self.model, self.folder = model, Prefix(store, f"decisions/{model}")
        self._history = Cell(self.folder, _HISTORY)

    def all(self) -> list[Decision]:
        """Every decision, oldest first."""
        keys = sorted(info.key for info in self.folder.list("records"))
        return [Decision.parse(self.folder.get(key), f"{self.folder.uri}/{key}") for key in keys]

    def next_number(self) -> int:
        return 1 + max((int(_stem(info.key)) for info in self.folder.list("records")), default=0)

    def add(self, decision: Decision) -> None:
        """Raises: ConflictError when somebody else has taken the number."""
        Cell(self.folder, f"records/{decision.number:06d}.json").replace(decision.to_json(), None)

    def history(self) -> tuple[History, str | None]:
        """What happened, and the etag that replace() wants."""
        found = self._history.read()
        if found is None:
            return History(schema_version=SCHEMA, entries=[]), None
        return History.parse(found[0], f"{self.folder.uri}/{_HISTORY}"), found[1]

    def replace(self, entries: Sequence[Entry], etag: str | None) -> str:
        """Returns the new etag. Raises: ConflictError when the history is not what it was."""
        return self._history.replace(History(schema_version=SCHEMA, entries=list(entries)).to_json(), etag)


def _stem(key: str) -> str:
    return key.rpartition("/")[2].partition(".")[0]
