"""What `rcg promote`, `rcg rollback` and `rcg history` do and print."""

import time

from components.errors import ArtifactError, MissingError
from flows.execution.project import Project
from flows.gate.champion import deciding
from flows.gate.decisions import Decision, Decisions, Entry
from flows.gate.drawing import draw_images, fetch_bundle
from flows.gate.promotion import Outcome, open_aliases, promote
from flows.registry import CHAMPION, Version
from flows.settings import load_settings


def promote_command(number: int | None, *, dry_run: bool) -> Outcome:
    return promote(Project.here(), number=number, dry_run=dry_run)


def rollback(number: int | None) -> str:
    """Make the champion before this one the champion again, or version `number`; the target is loaded first.

    Raises: MissingError when there is nothing to go back to.
    """
    project = Project.here()
    tracking, aliases = open_aliases(project)
    with deciding(project.store, aliases) as champion:
        present = aliases.of(CHAMPION)
        target = aliases.version(number or _before(champion.decisions, present))
        if present is not None and target.number == present.number:
            raise ArtifactError(f"version {target.number} is the champion already", fix="name another one with --to")
        folder = fetch_bundle(tracking, aliases.name, target, project.root / ".rcg/models")
        draw_images(folder, 1, 0, "cpu")
        entry = champion.change("rollback", target, present, champion.decisions.next_number() - 1)
    if entry.state == "void":
        raise ArtifactError("the rollback was not carried out", got=entry.why, fix="run it again")
    left = "none" if present is None else f"version {present.number}"
    return f"the champion of {aliases.name} is version {target.number} again (was {left})"


def _before(decisions: Decisions, present: Version | None) -> int:
    champions = decisions.history()[0].champions()
    if present is not None and present.number not in champions:
        champions.append(present.number)  # made champion by hand
    if len(champions) < 2:
        raise MissingError(
            "there is no earlier champion to go back to",
            got=f"champions so far: {', '.join(map(str, champions)) or 'none'}",
            fix="name a version: rcg rollback --to N",
        )
    return champions[-2]


def history() -> str:
    """Every change of the champion and every decision, in the order in which they were made."""
    settings = load_settings()
    decisions = Decisions(Project.here().store, settings.model_name)
    entries = decisions.history()[0].entries
    promoted = {entry.decision: entry for entry in entries if entry.action == "promote"}
    lines = [((d.number, 0), _decided(d, promoted.get(d.number))) for d in decisions.all()]
    lines += [((e.decision, e.number), _rolled(e)) for e in entries if e.action == "rollback"]
    if not lines:
        return f"nothing was ever decided about {settings.model_name}"
    return "\n".join(text for _, text in sorted(lines))


def _decided(decision: Decision, entry: Entry | None) -> str:
    failed = [check.name for check in decision.checks if not check.passed]
    fd = decision.challenger.metrics["fd"]
    against = "first" if decision.champion is None else f"against {decision.champion.version}"
    why = f": {', '.join(failed)}" if failed else ""
    head = f"{_when(decision.time_ms)}  version {decision.challenger.version} {decision.verdict}{_state(entry)}{why}"
    return f"{head}  ({against}, fd {fd:.4g}, by {decision.who})"


def _rolled(entry: Entry) -> str:
    head = f"{_when(entry.time_ms)}  version {entry.version} is champion again{_state(entry)}"
    return f"{head}  (rolled back from {entry.before}, by {entry.who})"


def _state(entry: Entry | None) -> str:
    """What keeps the entry from being a fact, if anything does."""
    if entry is None or entry.state == "done":
        return ""
    return " (the registry does not know yet)" if entry.why is None else f" (not carried out: {entry.why})"


def _when(time_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ms / 1000))
