"""One prepared run, from its spec alone: what the pods of a RayJob do, and what anybody may do by hand."""

import os
import traceback

from components.errors import ConfigError, RcgError, SupersededError, TamperedError
from components.store.base import Prefix, Store
from flows.execution.project import Project
from flows.execution.work import Display, Outcome, failure_class, work
from flows.executors.image import check_own_code
from flows.identity.artifact import digest_of
from flows.identity.fingerprint import LOCK
from flows.runs.rayjobs import job_context, note_failure
from flows.runs.records import Spec, load_run


def run_spec(uri: str, project: Project, display: Display | None = None) -> Outcome:
    """Do the work that a spec.json describes, in the store that holds it. Raises: what the work raises."""
    head, runs, tail = uri.rpartition("/runs/")
    if not runs or not tail.endswith("/spec.json"):
        raise ConfigError(
            "not the URI of a spec.json", got=uri, expected="<store>/runs/<stage>/<fingerprint>/spec.json"
        )
    project = Project(project.root, project.settings.model_copy(update={"store": head}))
    return _work(project, f"runs/{tail.removesuffix('/spec.json')}", display)


def _work(project: Project, prefix: str, display: Display | None) -> Outcome:
    """Do it; a RayJob leaves the reason of a failure in the store, as the operator passes on an exit code at most."""
    job, folder = project.settings.rayjob, Prefix(project.store, prefix)
    try:
        spec = Spec.parse(folder.get("spec.json"), f"{folder.uri}/spec.json")
        _check(project.store, spec, prefix)
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


def _check(store: Store, spec: Spec, prefix: str) -> None:
    """Whatever changes the result is part of the fingerprint, and so of the name: params, code, parents, the lock.

    Raises: TamperedError for a spec that says otherwise.
    """
    named = {name: digest for name, digest in spec.identity.inputs.items() if name != LOCK}
    wrong = [] if spec.prefix == prefix else [f"fingerprint {spec.fingerprint[:10]}"]
    wrong += [] if spec.identity.fingerprint == spec.fingerprint else [f"an identity {spec.identity.fingerprint[:10]}"]
    if LOCK in spec.identity.inputs and digest_of((spec.collection_lock or "").encode()) != spec.identity.inputs[LOCK]:
        wrong.append("another collection.lock")
    if spec.inputs.keys() != {name.partition("/")[0] for name in named}:
        wrong.append(f"parents {', '.join(spec.inputs) or 'none'}")
    wrong += [f"another {name}" for name, digest in named.items() if _input(store, spec, name) != digest]
    if wrong:
        raise TamperedError(
            f"the spec.json of {prefix} is not the work that its name stands for",
            got="; ".join(wrong),
            fix="it was altered: run the stage again from the project, which writes it anew",
        )


def _input(store: Store, spec: Spec, name: str) -> str | None:
    """The digest of a parent, or of the one file of it that counts, as the spec has it."""
    stage, _, file = name.partition("/")
    parent = spec.inputs.get(stage)
    if parent is None or not file:
        return None if parent is None else parent.digest
    run = load_run(store, parent.prefix)
    if run is None or run.digest != parent.digest or file not in run.manifest.files:
        return None
    return run.manifest.files[file].sha256


def _message(error: Exception) -> str:
    """Error message; adds the traceback's last frame for an exception that is no RcgError."""
    if isinstance(error, RcgError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error or repr(error)} ({type(error).__name__} in {last.name}, {last.filename}:{last.lineno})"
