"""`rcg explain`: whether a stage would run, and why, before anything is spent."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from components.errors import ArtifactError, RcgError
from flows.driver import Project, find_stage
from flows.fingerprint import Difference, differences
from flows.pipeline import STAGES, Stage
from flows.provenance import library_versions
from flows.runs.lookup import RunStatus, read_spec, run_status
from flows.runs.records import Spec

_SHOWN = 12
_WIDTH = 60


@dataclass(frozen=True)
class Outlook:
    """What is known of a stage as it stands now. `blocked`: its parents are not there yet."""

    stage: Stage
    spec: Spec | None
    status: RunStatus | None
    blocked: str | None


def outlook(project: Project, stage: Stage) -> Outlook:
    """Look only; nothing is started or changed."""
    try:
        spec = project.spec(stage)
        return Outlook(stage, spec, run_status(project.store, stage.name, spec.fingerprint), None)
    except ArtifactError as error:
        return Outlook(stage, None, None, error.what)


def explain_text(name: str | None) -> str:
    """What to print for one stage, or for all."""
    project = Project.here()
    wanted = [find_stage(name)] if name else list(STAGES.values())
    views = {
        stage.name: outlook(project, stage) for stage in STAGES.values() if name is None or _is_above(stage, wanted[0])
    }
    return "\n".join(_explain(project, views, stage) for stage in wanted)


def _is_above(stage: Stage, below: Stage) -> bool:
    """Whether `below` is the stage or needs it, directly or not."""
    return stage.name == below.name or any(_is_above(stage, STAGES[need.stage]) for need in below.needs)


def _unfinished(views: Mapping[str, Outlook], stage: Stage) -> str | None:
    """The first stage above that is not finished as params and code stand now."""
    for need in stage.needs:
        above = _unfinished(views, STAGES[need.stage])
        if above is not None:
            return above
        status = views[need.stage].status
        if status is None or status.run is None:
            return need.stage
    return None


def _explain(project: Project, views: Mapping[str, Outlook], stage: Stage) -> str:
    view, above = views[stage.name], _unfinished(views, stage)
    if above is not None:
        return f"{stage.name}: waits for {above}; runs unless what it reads comes out the same"
    if view.spec is None or view.status is None:
        return f"{stage.name}: cannot tell yet: {view.blocked}"
    short = view.spec.fingerprint[:10]
    if view.status.run is not None:
        return "\n".join([f"{stage.name}: will not run; run {short} is finished", *_drift(view.status)])
    states = {
        "running": f"is running now (attempt {view.status.attempt}); the command would follow it",
        "interrupted": f"was interrupted (attempt {view.status.attempt}); the command would continue it",
        "failed": f"failed (attempt {view.status.attempt}); the command would try again",
        "absent": "will run",
    }
    lines = [f"{stage.name}: {states[view.status.state]}; run {short}"]
    if view.status.failure is not None:
        lines.append(f"    last failure: {view.status.failure.message.splitlines()[0]}")
    return "\n".join(lines + _reasons(project, view.spec))


def _reasons(project: Project, spec: Spec) -> list[str]:
    """How the run that artifacts/ shows differs from the one that would be made."""
    pointer = project.workspace.pointer(spec.stage)
    if pointer is None:
        return ["    it has never run in this checkout"]
    if pointer.fingerprint == spec.fingerprint:
        return ["    the store does not hold the result that artifacts/ shows"]
    try:
        before = read_spec(project.store, spec.stage, pointer.fingerprint)
    except RcgError as error:
        return [f"    the last run cannot be compared: {error.what}"]
    if before is None:
        return [f"    the store does not know the last run, {pointer.fingerprint[:10]}"]
    found = differences(before.identity, spec.identity)
    more = [f"    … and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return [f"    {_reason(d)}" for d in found[:_SHOWN]] + more


def _reason(difference: Difference) -> str:
    kind = {"params": "param", "inputs": "input", "modules": "module", "schema": "schema"}[difference.kind]
    if difference.old is None:
        return f"{kind} {difference.name}: new, {_short(difference.new)}"
    if difference.new is None:
        return f"{kind} {difference.name}: gone, was {_short(difference.old)}"
    return f"{kind} {difference.name}: {_short(difference.old)} -> {_short(difference.new)}"


def _short(value: object) -> str:
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return value[:10]
    text = json.dumps(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _drift(status: RunStatus) -> list[str]:
    """Libraries that are other versions now than when the run was made: recorded, not part of the identity."""
    made = status.run.record.versions if status.run is not None else {}
    now = library_versions()
    drifted = [f"{name} {made[name]} -> {now[name]}" for name in made if name in now and now[name] != made[name]]
    return [f"    made with other libraries: {', '.join(drifted)}"] if drifted else []
