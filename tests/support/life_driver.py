"""Runs commands in forked children of one process that has imported what is heavy; started in a checkout.

Reads one JSON object per line: {"do": "retrain", "die_after": "branch"} or {"do": "rollback"}; answers with one each.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from components.errors import RcgError
from flows.commands.history import history_lines
from flows.execution.project import Project
from flows.gate.champion import open_aliases
from flows.gate.decisions import Decisions
from flows.gate.rollback import rollback
from flows.lineage.erasure import forget
from flows.retrain.lock import StoreLock
from flows.retrain.steps import retrain

torch.set_num_threads(1)


def work(request: dict[str, Any]) -> dict[str, Any]:
    """One command, in a child."""
    project = Project.here()
    if request["do"] == "retrain":

        def after(step: str) -> None:
            if step == request.get("die_after"):
                os.kill(os.getpid(), signal.SIGKILL)

        result = retrain(project, StoreLock(project.store), after=after)
        return {"end": result.end, "text": result.text}
    if request["do"] == "rollback":
        return {"version": rollback(project, None)[0].number}
    if request["do"] == "forget":
        found = forget(project, request["image"], dry_run=False)
        return {"models": found.models, "keys": found.keys}
    if request["do"] == "history":
        return {"text": "\n".join(history_lines(Decisions(project.store, project.settings.tracking.model_name)))}
    aliases = open_aliases(project)[1]
    champion, previous = aliases.of("champion"), aliases.of("previous-champion")
    return {
        "champion": champion and champion.number,
        "previous": previous and previous.number,
        "tags": dict(champion.tags) if champion else {},
    }


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait, and give what the child told, or how it died."""
    told = Path(f".rcg/told-{os.getpid()}.json")
    pid = os.fork()
    if pid == 0:
        try:
            told.write_text(json.dumps(work(request)))
        except RcgError as error:
            told.write_text(json.dumps({"error": str(error), "code": error.exit_code}))
        except BaseException:
            told.write_text(json.dumps({"crash": traceback.format_exc()}))
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    found: dict[str, Any] = json.loads(told.read_text())
    return found


if __name__ == "__main__":
    Path(".rcg").mkdir(exist_ok=True)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what commands print goes to stderr
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()
