"""Whether a stage would run, why, what it would use again and what it would cost: known before anything is spent."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from components.errors import ArtifactError, MissingError, RcgError
from flows.execution.budget.expected import expected
from flows.execution.capacity import Capacity, capacities
from flows.execution.forecast import Cost, Earlier, Memos, checkpoint_step, cost_of, earlier_runs, memos_of
from flows.execution.project import Project
from flows.identity.environment import library_versions
from flows.pipeline.table import Stage
from flows.runs.lookup import RunStatus, run_status
from flows.runs.records import Spec


@dataclass(frozen=True)
class Outlook:
    """What is known of a stage as it stands now. `blocked`: its parents are not there yet, or something is damaged."""

    stage: Stage
    spec: Spec | None
    status: RunStatus | None
    blocked: ArtifactError | None

    @property
    def damaged(self) -> bool:
        """Whether its run, or what artifacts/ shows of a parent, is damaged."""
        return self.blocked is not None and (self.spec is not None or not isinstance(self.blocked, MissingError))


@dataclass(frozen=True)
class Explanation:
    """What is known of one stage."""

    stage: str
    headline: str
    runs: bool
    """Whether it would do work, as far as is known."""
    fingerprint: str | None = None
    waits_for: str | None = None
    nearest: Earlier | None = None
    notes: tuple[str, ...] = ()
    reads: Mapping[str, str] | None = None
    memos: Memos | None = None
    cost: Cost | None = None
    expected_s: float | None = None
    """Seconds that `rcg init` planned for it, where no earlier run tells."""
    capacity: Capacity | None = None
    """What its training takes of a GPU."""


def outlook(project: Project, stage: Stage) -> Outlook:
    """Look only; nothing is started or changed."""
    spec = None
    try:
        spec = project.spec(stage)
        return Outlook(stage, spec, run_status(project.store, stage.name, spec.fingerprint), None)
    except ArtifactError as error:
        return Outlook(stage, spec, None, error)


def explain(project: Project, name: str | None, *, memory: bool = False) -> list[Explanation]:
    """Of one stage, or of all in order; with `memory`, what trainings will take. Nothing is started or changed."""
    stages = project.stages
    wanted = [project.stage(name)] if name else list(stages.values())
    views = {
        stage.name: outlook(project, stage)
        for stage in stages.values()
        if name is None or _is_above(stages, stage, wanted[0])
    }
    planned = expected(project.root, project.sections)
    found = [_explain(project, views, stage) for stage in wanted]
    found = [replace(e, expected_s=planned.get(e.stage)) if e.runs and e.cost is None else e for e in found]
    if not memory and project.settings.worker.gpu_memory_gb is None:
        return found
    taken = capacities(project.params, project.settings.worker, {e.stage for e in found if e.runs})
    return [replace(e, capacity=taken.get(e.stage)) for e in found]


def _is_above(stages: Mapping[str, Stage], stage: Stage, below: Stage) -> bool:
    """Whether `below` is the stage or needs it, directly or not."""
    return stage.name == below.name or any(_is_above(stages, stage, stages[need.stage]) for need in below.needs)


def _unfinished(views: Mapping[str, Outlook], stage: Stage) -> str | None:
    """The first stage above that is not finished as params and code stand now."""
    for need in stage.needs:
        above = _unfinished(views, views[need.stage].stage)
        if above is not None:
            return above
        status = views[need.stage].status
        if status is None or status.run is None:
            return need.stage
    return None


def _explain(project: Project, views: Mapping[str, Outlook], stage: Stage) -> Explanation:
    view, above = views[stage.name], _unfinished(views, stage)
    if above is not None:
        return _waiting(project, view, above)
    if view.spec is None or view.status is None:
        said = "" if view.blocked is None else view.blocked.what
        return Explanation(stage.name, f"{'is damaged' if view.damaged else 'cannot tell yet'}: {said}", runs=True)
    short = view.spec.fingerprint[:10]
    if view.status.run is not None:
        headline = f"will not run; run {short} is finished"
        return Explanation(stage.name, headline, False, view.spec.fingerprint, notes=_drift(view.status))
    states = {
        "running": f"is running now (attempt {view.status.attempt}); the command would follow it",
        "interrupted": f"was interrupted (attempt {view.status.attempt}); the command would continue it",
        "failed": f"failed (attempt {view.status.attempt}); the command would try again",
        "absent": "will run",
    }
    return _outcome(project, view.spec, view.status, f"{states[view.status.state]}; run {short}")


def _waiting(project: Project, view: Outlook, above: str) -> Explanation:
    """What is known of a stage whose inputs are not made yet: what of its own has changed, and the cost if it runs."""
    unless = f"waits for {above}; runs unless what it reads comes out the same"
    if view.spec is None:
        return Explanation(view.stage.name, unless, runs=True, waits_for=above)
    try:
        earlier = earlier_runs(project.store, view.spec)
    except RcgError:
        earlier = []
    run = view.status.run if view.status is not None else None
    if run is not None:
        cost = cost_of(view.spec.identity.params, [Earlier(view.spec.fingerprint, view.spec, run, []), *earlier])
        return Explanation(view.stage.name, unless, runs=True, waits_for=above, cost=cost)
    cost = cost_of(view.spec.identity.params, earlier)
    nearest = _own_changes(earlier[0]) if earlier else None
    headline = unless if nearest is None else f"waits for {above}; then it will run"
    return Explanation(view.stage.name, headline, runs=True, waits_for=above, nearest=nearest, cost=cost)


def _own_changes(earlier: Earlier) -> Earlier | None:
    """What differs besides inputs, which will be others anyway; None if nothing does."""
    own = [difference for difference in earlier.differences if difference.kind != "inputs"]
    return replace(earlier, differences=own) if own else None


def _outcome(project: Project, spec: Spec, status: RunStatus, headline: str) -> Explanation:
    """Of a stage that would do work: why, with what, at what cost."""
    notes: list[str] = []
    if status.failure is not None:
        notes.append(f"last failure: {status.failure.message.splitlines()[0]}")
    share, memos = 1.0, None
    try:
        earlier = earlier_runs(project.store, spec)
        memos = memos_of(project.store, spec)
    except RcgError as error:
        earlier = []
        notes.append(f"earlier runs cannot be compared: {error.what}")
    step, steps = checkpoint_step(project.store, spec.prefix), (spec.identity.params.get("train") or {}).get("steps")
    if step is not None:
        share = max(0.0, 1 - step / steps) if steps else 1.0
        notes.append(f"goes on from its checkpoint of step {step}" + (f" of {steps}" if steps else ""))
    elif memos is not None:
        share = memos.share
    nearest = earlier[0] if earlier else None
    if nearest is None:
        notes.append("it has never run in this store")
    elif nearest.run is None and checkpoint_step(project.store, nearest.spec.prefix) is not None:
        notes.append(f"run {nearest.fingerprint[:10]} has checkpoints; `rcg adopt` can go on from them")
    return Explanation(
        spec.stage,
        headline,
        True,
        spec.fingerprint,
        None,
        nearest,
        tuple(notes),
        {name: parent.digest for name, parent in spec.inputs.items()},
        memos,
        cost_of(spec.identity.params, earlier, share=share),
    )


def _drift(status: RunStatus) -> tuple[str, ...]:
    """Libraries that are other versions now than when the run was made: recorded, not part of the identity."""
    made = status.run.record.versions if status.run is not None else {}
    now = library_versions()
    drifted = [f"{name} {made[name]} -> {now[name]}" for name in made if name in now and now[name] != made[name]]
    return (f"made with other libraries: {', '.join(drifted)}",) if drifted else ()
