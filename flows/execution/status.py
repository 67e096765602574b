"""One screen over stages, collection, store and registry."""

from components.errors import RcgError
from flows.execution.explanation import Outlook, outlook
from flows.execution.project import Project


def status_text(project: Project) -> str:
    """The screen's text; nothing is started or changed."""
    views = [outlook(project, stage) for stage in project.stages.values()]
    rows = [("stage", "state", "run", "content"), *(_row(view) for view in views)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    damaged = [f"{view.stage.name} is damaged: {view.blocked}" for view in views if view.damaged]
    facts = [
        *([*damaged, ""] if damaged else []),
        *([f"rayjobs     {_jobs(project)}"] if project.settings.executor == "kuberay" else []),
        f"collection  {_collection(project)}",
        f"store       {project.store.uri}",
        f"executor    {project.settings.executor} x {project.settings.worker.workers}",
        f"registry    {_registry(project)}",
    ]
    return "\n".join([*table, "", *facts])


def _row(view: Outlook) -> tuple[str, str, str, str]:
    short = "" if view.spec is None else view.spec.fingerprint[:10]
    if view.status is None:
        return view.stage.name, "damaged" if view.damaged else "waits for its parents", short, ""
    run = view.status.run
    states = {"complete": "done", "absent": "to run"}
    state = states.get(view.status.state, view.status.state)
    event = view.status.last_event
    if view.status.state in ("running", "interrupted") and event is not None:
        state += f" at {event.step}" + (f"/{event.total_steps}" if event.total_steps else "")
    return view.stage.name, state, short, run.digest[:10] if run is not None else ""


def _collection(project: Project) -> str:
    from components.collection.lock import read_lock
    from components.collection.snapshot import verify_source
    from components.collection.source import open_source
    from flows.identity.fingerprint import LOCK

    if project.lock_text is None:
        return "no collection.lock: `rcg snapshot FOLDER`"
    try:
        lock = read_lock(project.root / LOCK)
        unlisted = verify_source(open_source(project.settings.source), lock)
    except RcgError as error:
        return f"source and lock disagree: {error.what}"
    news = f", {unlisted} new since the snapshot" if unlisted else ", up to date"
    return f"{lock.count} pictures in {len(lock.chunks)} chunk(s) of {project.settings.source}{news}"


def _registry(project: Project) -> str:
    from flows.registry import look

    if project.tracking is None:
        return "off (RCG_MLFLOW_URI=off)"
    try:
        registered = look(project.tracking, project.settings.tracking.model_name)
    except RcgError as error:
        return error.what
    return "\n            ".join(registered.describe(alias) for alias in ("champion", "challenger"))


def _jobs(project: Project) -> str:
    from flows.execution.cluster import jobs_text

    try:
        return jobs_text(project).replace("\n", "\n" + " " * 12)
    except RcgError as error:
        return error.what
