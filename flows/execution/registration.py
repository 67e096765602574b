"""The bundle of a checkout becomes a version of the registered model."""

import logging
from collections.abc import Mapping

from components.errors import ConfigError, RcgError
from flows.execution.project import Project
from flows.identity.artifact import digest_of
from flows.identity.environment import git_state
from flows.registry import register
from flows.runs.lookup import read_spec
from flows.tracking import note

_log = logging.getLogger(__name__)


def register_bundle(project: Project) -> str:
    """Register artifacts/bundle as `challenger`; returns e.g. "models:/rcg/3 (challenger)".

    Raises: ConfigError, RetryableError, ArtifactError.
    """
    if project.tracking is None:
        raise ConfigError("registering needs MLflow", got="RCG_MLFLOW_URI=off", fix="unset RCG_MLFLOW_URI")
    run = project.committed("bundle")
    tags = git_state(project.root)
    _note_skipped(project, tags)
    lock = project.root / "dvc.lock"
    if lock.is_file():
        tags["dvc_lock"] = digest_of(lock.read_bytes())
    return register(project.tracking, project.store, run, name=project.settings.tracking.model_name, tags=tags)


def register_quietly(project: Project) -> None:
    """The bundle stage registers too, but an MLflow that does not answer must not fail it."""
    if project.tracking is None:
        return
    try:
        register_bundle(project)
    except RcgError as error:
        _log.warning("the bundle is not registered yet; `rcg register` does it later: %s", error)


def _note_skipped(project: Project, context: Mapping[str, str]) -> None:
    """Give the pipeline's parent run in MLflow a child for each stage that DVC skipped and that never ran here."""
    for stage in project.stages:
        run = project.committed(stage)
        spec = read_spec(project.store, stage, run.fingerprint)
        if spec is not None:
            note(project.tracking, project.record(spec, context, reused=True), _log.warning)
