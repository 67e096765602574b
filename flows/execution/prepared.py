"""One prepared run, from its spec alone: what the pods of a RayJob do, and what anybody may do by hand."""

import os
import traceback

from components.errors import ConfigError, RcgError, SupersededError
from components.store.base import Prefix
from flows.execution.project import Project
from flows.execution.work import Display, Outcome, failure_class, work
from flows.executors.image import check_own_code
from flows.runs.rayjobs import job_context, note_failure
from flows.runs.records import Spec


def run_spec(uri: str, project: Project, display: Display | None = None) -> Outcome:
    """Do the work that a spec.json describes, in the store that holds it. Raises: what the work raises."""
    head, runs, tail = uri.rpartition("/runs/")
    if not runs or not tail.endswith("/spec.json"):
        raise ConfigError(
            "not the URI of a spec.json", got=uri, expected="<store>/runs/<stage>/<fingerprint>/spec.json"
        )
    project = Project(project.root, project.settings.model_copy(update={"store": head}))
    return _work(project, Spec.parse(project.store.get(f"runs/{tail}"), uri), display)


def _work(project: Project, spec: Spec, display: Display | None) -> Outcome:
    """Do it; a RayJob leaves the reason of a failure in the store, as the operator passes on an exit code at most."""
    job, folder = project.settings.rayjob, Prefix(project.store, spec.prefix)
    try:
        check_own_code(spec)
        context = job_context(folder, job) if job else {}
        cluster = os.environ.get("RAY_CLUSTER_NAME")  # set by the operator
        if cluster:
            context["ray_cluster"] = cluster
        return work(spec, project.doing(context=context, tracked=False, display=display))
    except Exception as error:
        if job and not isinstance(error, SupersededError):
            note_failure(folder, job, failure_class(error), _message(error))
        raise


def _message(error: Exception) -> str:
    """Error message; adds the traceback's last frame for an exception that is no RcgError."""
    if isinstance(error, RcgError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error or repr(error)} ({type(error).__name__} in {last.name}, {last.filename}:{last.lineno})"
