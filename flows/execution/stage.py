"""One stage of a project, run or found done."""

import logging

from flows.execution.project import Project
from flows.execution.registration import register_quietly
from flows.execution.work import Display, Outcome, run_and_publish
from flows.identity.environment import git_state
from flows.tracking import note

_log = logging.getLogger(__name__)


def run_stage(project: Project, name: str, display: Display | None = None) -> Outcome:
    """Run the stage or find it done, and show it in artifacts/<name>/. The bundle is registered, too."""
    stage = project.stage(name)
    spec = project.spec(stage)
    context = git_state(project.root)
    here = name == "bundle" and project.settings.executor == "kuberay"  # a job's start would take longer
    outcome = run_and_publish(stage, spec, project.root, project.doing(context=context, here=here, display=display))
    if outcome.how != "made":
        note(project.tracking, project.record(spec, context, reused=True), _log.warning)
    if name == "bundle":
        register_quietly(project)
    return outcome
