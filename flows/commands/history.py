"""`rcg history`."""

import time
from typing import TYPE_CHECKING

from flows.commands.terminal import say_lines

if TYPE_CHECKING:
    from flows.gate.decisions import Decision, Decisions, Entry


def command() -> None:
    """List every decision of the gate and every change of the champion."""
    from flows.execution.project import Project
    from flows.gate.decisions import Decisions

    project = Project.here()
    model = project.settings.tracking.model_name
    lines = history_lines(Decisions(project.store, model))
    say_lines(lines or [f"nothing was ever decided about {model}"])


def history_lines(decisions: "Decisions") -> list[str]:
    """Every decision and every rollback, in the order in which they were made."""
    entries = decisions.history()[0].entries
    promoted = {entry.decision: entry for entry in entries if entry.action == "promote"}
    lines = [((d.number, 0), _decision(d, promoted.get(d.number))) for d in decisions.all()]
    lines += [((e.decision, e.number), _rollback(e)) for e in entries if e.action == "rollback"]
    return [text for _, text in sorted(lines)]


def _decision(decision: "Decision", entry: "Entry | None") -> str:
    from flows.gate.verdict import JUDGE

    failed = [check.name for check in decision.checks if not check.passed]
    fd = "" if JUDGE in failed else f"fd {decision.challenger.metrics['fd']:.4g}, "
    against = "first" if decision.champion is None else f"against {decision.champion.version}"
    why = f": {', '.join(failed)}" if failed else ""
    head = f"{_when(decision.time_ms)}  version {decision.challenger.version} {decision.verdict}{_open(entry)}{why}"
    return f"{head}  ({against}, {fd}by {decision.who})"


def _rollback(entry: "Entry") -> str:
    head = f"{_when(entry.time_ms)}  version {entry.version} is champion again{_open(entry)}"
    return f"{head}  (rolled back from {entry.before}, by {entry.who})"


def _open(entry: "Entry | None") -> str:
    """Says so where the registry does not follow the entry, yet or at all."""
    if entry is None or entry.state == "done":
        return ""
    return " (the registry does not know yet)" if entry.why is None else f" (not carried out: {entry.why})"


def _when(time_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ms / 1000))
