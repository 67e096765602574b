"""`rcg adopt`."""

from typing import Annotated

import typer

from flows.commands.terminal import StageName, say


def command(
    stage: StageName,
    source: Annotated[str, typer.Option("--from", help="Fingerprint of the run whose result counts.")],
    reason: Annotated[str, typer.Option(help="Why it does; kept in the lineage.")],
) -> None:
    """Accept another run's result for the stage as it stands now, e.g. across a refactoring."""
    from flows.execution.project import Project
    from flows.runs.records import full_fingerprint, load_run, run_prefix
    from flows.runs.transfer import adopt, adopt_checkpoints

    project = Project.here()
    wanted, store = project.stage(stage), project.store
    spec = project.spec(wanted)
    fingerprint = full_fingerprint(store, stage, source)
    if load_run(store, run_prefix(stage, fingerprint)) is None:
        step = adopt_checkpoints(store, spec, source, reason)
        say(f"{stage}: `rcg run {stage}` will go on from step {step} of run {fingerprint[:10]}")
        return
    run = adopt(store, spec, source, reason)
    project.workspace.publish(store, run, wanted)
    say(f"{stage}: run {run.fingerprint[:10]} now has the result of {source[:10]} · content {run.digest[:10]}")
