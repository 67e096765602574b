"""`rcg job`: one prepared run, from its spec alone. What the pods of a RayJob do, and what anybody may do by hand."""

import os
import traceback
from pathlib import Path

from components.errors import ConfigError, RcgError, SupersededError
from components.store.base import Prefix
from flows.execution.job import Outcome, failure_class, work
from flows.execution.project import Project, told
from flows.identity.image import check_own_code
from flows.runs.rayjobs import job_context, note_failure
from flows.runs.records import Spec
from flows.settings import load_settings


def run_spec(uri: str) -> str:
    """Do the work that a spec.json describes, in the store that holds it; returns the line to print."""
    head, runs, tail = uri.rpartition("/runs/")
    if not runs or not tail.endswith("/spec.json"):
        raise ConfigError(
            "not the URI of a spec.json", got=uri, expected="<store>/runs/<stage>/<fingerprint>/spec.json"
        )
    project = Project(Path.cwd(), load_settings().model_copy(update={"store": head}))
    spec = Spec.parse(project.store.get(f"runs/{tail}"), uri)
    return told(_worked(project, spec), f"{head}/{spec.prefix}")


def _worked(project: Project, spec: Spec) -> Outcome:
    """Do it; in a RayJob the driver is told through the store why not: the operator knows an exit code at most."""
    job, folder = project.settings.rayjob, Prefix(project.store, spec.prefix)
    try:
        check_own_code(spec)
        context = job_context(folder, job) if job else {}
        cluster = os.environ.get("RAY_CLUSTER_NAME")  # set by the operator
        if cluster:
            context["ray_cluster"] = cluster
        return work(spec, project.doing(context=context, tracked=False))
    except Exception as error:
        if job and not isinstance(error, SupersededError):
            note_failure(folder, job, failure_class(error), _message(error))
        raise


def _message(error: Exception) -> str:
    """What there is to say; of an error that nobody worded also where it came from."""
    if isinstance(error, RcgError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error or repr(error)} ({type(error).__name__} in {last.name}, {last.filename}:{last.lineno})"
