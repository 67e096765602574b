"""`rcg explain`."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.terminal import say, say_lines, warn

if TYPE_CHECKING:
    from flows.execution.capacity import Capacity
    from flows.execution.explanation import Explanation
    from flows.execution.forecast import Cost, Earlier
    from flows.identity.fingerprint import Difference

_SHOWN = 12
_WIDTH = 60


def command(
    stage: Annotated[str | None, typer.Argument(help="One stage; all when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Estimate what each training takes of a GPU; some seconds.")
    ] = False,
) -> None:
    """Say whether a stage would run, why exactly, what it would use again and what it would cost."""
    from flows.execution.explanation import explain
    from flows.execution.foresight import concerns
    from flows.execution.project import Project

    project = Project.here()
    warn(concerns(project))
    found = explain(project, stage, memory=memory)
    if as_json:
        say(json.dumps([_as_json(e) for e in found], indent=2, sort_keys=True))
        return
    lines = [line for explanation in found for line in _lines(explanation)]
    say_lines(lines + (_total(found) if stage is None else []))


def _as_json(e: "Explanation") -> dict[str, Any]:
    cost = None if e.cost is None else {**vars(e.cost), "worker_hours": e.cost.worker_hours}
    nearest = None
    if e.nearest is not None:
        nearest = {
            "fingerprint": e.nearest.fingerprint,
            "finished": e.nearest.run is not None,
            "differences": [d._asdict() for d in e.nearest.differences],
        }
    return {
        "stage": e.stage,
        "verdict": e.headline,
        "runs": e.runs,
        "fingerprint": e.fingerprint,
        "waits_for": e.waits_for,
        "nearest": nearest,
        "notes": list(e.notes),
        "reads": e.reads,
        "memos": None if e.memos is None else vars(e.memos),
        "cost": cost,
        "expected_s": e.expected_s,
        "gpu": _gpu_as_json(e.capacity),
    }


def _gpu_as_json(capacity: "Capacity | None") -> dict[str, Any] | None:
    if capacity is None:
        return None
    told = {} if capacity.estimate is None else {**vars(capacity.estimate), "total": capacity.estimate.total}
    return {**told, "steps": capacity.steps, "fits": capacity.fits, "fix": capacity.fix(), "reason": capacity.reason}


def _lines(e: "Explanation") -> list[str]:
    lines = [f"{e.stage}: {e.headline}"]
    if e.nearest is not None:
        state = f"of {_day(e.nearest)}" if e.nearest.run is not None else "which was not finished"
        lines.append(f"    compared with run {e.nearest.fingerprint[:10]} {state}:")
        shown = e.nearest.differences[:_SHOWN]
        lines += [f"    {_reason(d)}" for d in shown]
        hidden = len(e.nearest.differences) - len(shown)
        lines += [f"    … and {hidden} more"] if hidden else []
    lines += [f"    {note}" for note in e.notes]
    if e.reads:
        lines.append(f"    reads {', '.join(f'{name} {digest[:10]}' for name, digest in e.reads.items())}: all there")
    if e.memos is not None:
        lines.append(
            f"    uses {e.memos.present} of {e.memos.total} chunk(s) again; {e.memos.pictures_missing} of "
            f"{e.memos.pictures} pictures to do"
        )
    if e.cost is not None:
        scaled = f", scaled by {e.cost.scaled:.3g}" if e.cost.scaled != 1 else ""
        joining = ", besides joining the chunks" if e.memos is not None and e.cost.scaled < 1 else ""
        lines.append(f"    would take {_spoken(e.cost)}, by run {e.cost.like[:10]}{scaled}{joining}")
    elif e.expected_s is not None:
        lines.append(f"    would take about {_duration(e.expected_s)}, as `rcg init` timed its steps")
    return lines + ([] if e.capacity is None else gpu_lines(e.capacity))


def gpu_lines(capacity: "Capacity") -> list[str]:
    found, limit = capacity.estimate, capacity.how.gpu_memory_gb
    if found is None:
        return [f"    what it takes of a GPU is not known before the stages above it: {capacity.reason}"]
    kinds = ("weights", "averages", "optimizer", "gradients", "activations")
    parts = ", ".join(f"{name} {_size(getattr(found, name))}" for name in kinds)
    lines = [
        f"    takes about {_size(found.total)} of a GPU at {found.rows} example(s) per pass: {parts}",
        f"    a step is {found.flops:.3g} FLOPs, the training {found.flops * capacity.steps:.3g}",
    ]
    if capacity.fits is not None:
        lines.append(
            f"    fits a GPU of {limit:g} GB"
            if capacity.fits
            else f"    will not fit a GPU of {limit:g} GB: {capacity.fix()}"
        )
    return lines


def _day(earlier: "Earlier") -> str:
    ended_ms = earlier.run.record.ended_ms if earlier.run is not None else 0
    return f"{datetime.fromtimestamp(ended_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _spoken(cost: "Cost") -> str:
    from flows.runs.ancestry import spoken_duration

    hours = f"{cost.worker_hours:.2g} worker-hours, {_size(cost.n_bytes)}"
    return f"about {spoken_duration(cost.seconds)} on {cost.workers} x {cost.device} ({hours})"


def _duration(seconds: float) -> str:
    from flows.runs.ancestry import spoken_duration

    return spoken_duration(seconds)


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"


def _total(found: "list[Explanation]") -> list[str]:
    """One line over all stages that would or might run."""
    from flows.runs.ancestry import spoken_duration

    costs = [e.cost for e in found if e.runs and e.cost is not None]
    planned = sum(e.expected_s or 0.0 for e in found)
    unknown = sum(e.runs and e.cost is None and e.expected_s is None for e in found)
    if planned:
        more = f"; {unknown} more stage(s) that nobody timed" if unknown else ""
        return ["", f"all that would or might run: about {_duration(planned + sum(c.seconds for c in costs))}{more}"]
    if not costs:
        return []
    more = f"; {unknown} more stage(s) without an earlier run to go by" if unknown else ""
    hours, n_bytes = sum(c.worker_hours for c in costs), sum(c.n_bytes for c in costs)
    seconds = spoken_duration(sum(c.seconds for c in costs))
    return ["", f"all that would or might run: about {seconds}, {hours:.2g} worker-hours, {_size(n_bytes)}{more}"]


def _reason(difference: "Difference") -> str:
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
