"""The champion of one model: the store's history and the registry's alias, kept in step through kills and outages.

A change is appended to history.json as `pending` by compare-and-swap; then the aliases are moved; then it is `done`.
Whoever comes next finishes what is pending. An alias that was moved by hand meanwhile wins, and the entry is void.
"""

import getpass
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from components.errors import ConfigError, ConflictError, MissingError
from components.store.base import Prefix, Store
from flows.execution.project import Project
from flows.gate.decisions import Action, Decisions, Entry
from flows.registry import CHAMPION, PREVIOUS, Aliases, Version
from flows.runs.lease import FencedStore, Lease, Watch, acquire
from flows.tracking import Tracking

ROLLED_BACK = "rcg.rolled_back"
"""Tag of a version that was left by a rollback: who did it and when."""
_HEARTBEAT_S = 10.0


def open_aliases(project: Project) -> tuple[Tracking, Aliases]:
    """Raises: ConfigError when the registry is switched off, RetryableError when it does not answer."""
    if project.tracking is None:
        raise ConfigError("this needs the model registry", got="RCG_MLFLOW_URI=off", fix="unset RCG_MLFLOW_URI")
    return project.tracking, Aliases(project.tracking, project.settings.tracking.model_name)


class Champion:
    """Use inside deciding(), which sees to it that nobody else decides meanwhile."""

    def __init__(self, aliases: Aliases, decisions: Decisions) -> None:
        self.aliases, self.decisions = aliases, decisions

    def settle(self) -> Entry | None:
        """Finish the change that a killed or disconnected command left pending; None if there was none."""
        history, etag = self.decisions.history()
        entry = history.pending
        if entry is None:
            return None
        present = _number(self.aliases.of(CHAMPION))
        if present in (entry.before, entry.version):
            self._point(entry, history.champions())
            state: dict[str, str | None] = {"state": "done"}
        else:
            state = {"state": "void", "why": f"the alias was moved by hand to version {present}"}
        settled = entry.model_copy(update=state)
        self.decisions.replace([*history.entries[:-1], settled], etag)
        return settled

    def _point(self, entry: Entry, champions: list[int]) -> None:
        """Idempotent; the champion last, so that consumers see either the old state or all of the new one."""
        before = champions[-2] if len(champions) > 1 else None
        if before is not None and not self._exists(before):
            before = None
        when = _text(entry.time_ms)
        self.aliases.tag(entry.version, {"rcg.champion_since": when, "rcg.champion_by": entry.who, ROLLED_BACK: ""})
        if entry.action == "rollback" and entry.before is not None and self._exists(entry.before):
            self.aliases.tag(entry.before, {ROLLED_BACK: f"by {entry.who} on {when}"})
        self.aliases.point(PREVIOUS, before)
        self.aliases.point(CHAMPION, entry.version)

    def _exists(self, number: int) -> bool:
        try:
            self.aliases.version(number)
        except MissingError:
            return False
        return True

    def change(self, action: Action, target: Version, before: Version | None, decision: int) -> Entry:
        """Make `target` the champion, if `before` still is. Raises: ConflictError when somebody moved the alias."""
        present = self.aliases.of(CHAMPION)
        if _number(present) != _number(before):
            raise ConflictError(
                "the champion changed while this command was at work",
                got=f"version {_number(present)}",
                expected=f"version {_number(before)}",
                fix="run the same command again: it judges against the new one",
            )
        history, etag = self.decisions.history()
        entry = Entry(
            number=1 + len(history.entries),
            action=action,
            version=target.number,
            digest=target.digest,
            before=_number(before),
            decision=decision,
            who=who(),
            time_ms=now_ms(),
            state="pending",
            why=None,
        )
        self.decisions.replace([*history.entries, entry], etag)
        return self.settle() or entry


@contextmanager
def deciding(store: Store, aliases: Aliases) -> Iterator[Champion]:
    """The right to change the champion, and what was left pending finished.

    Raises: ConflictError naming who else is deciding.
    """
    claim = acquire(Prefix(store, f"decisions/{aliases.name}"), interval_s=_HEARTBEAT_S, watch=Watch())
    if not isinstance(claim, Lease):
        raise ConflictError(
            f"somebody else is deciding about {aliases.name} just now", got=claim.holder, fix="wait for that to end"
        )
    with claim:
        champion = Champion(aliases, Decisions(FencedStore(store, claim.check), aliases.name))
        champion.settle()
        yield champion


def who() -> str:
    """The person or pod that acts, as far as the machine knows."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unnamed"
    return f"{user}@{socket.gethostname()}"


def now_ms() -> int:
    return time.time_ns() // 10**6


def _text(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ms / 1000))


def _number(version: Version | None) -> int | None:
    return None if version is None else version.number
