"""`rcg gc`."""

from typing import Annotated

import typer

from flows.commands.terminal import finite, say


def command(
    delete: Annotated[bool, typer.Option("--delete", help="Do it; otherwise only say what would go.")] = False,
    days: Annotated[
        float, typer.Option(help="Runs that ended or showed life since so many days stay.", min=0, callback=finite)
    ] = 7.0,
) -> None:
    """Delete runs that no branch, tag, registered version or checkout stands on, and checkpoints of finished ones."""
    from flows.execution.cluster import sweep_jobs
    from flows.execution.project import Project
    from flows.lineage.garbage import collect_garbage
    from flows.retrain.lock import open_lock

    project = Project.here()
    with open_lock(project).held():
        found = collect_garbage(project, days=days, delete=delete)
    verb = "deleted" if delete else "would be deleted (--delete does it)"
    say(f"{found.n_runs} run(s) and {len(found.keys)} object(s) {verb}; {found.n_kept} run(s) stay")
    for kind, size in sorted(found.sizes.items()):
        say(f"  {kind:<12} {size / 2**20:10.1f} MiB")
    if project.settings.executor == "kuberay":
        n_jobs = sweep_jobs(project, days=days, delete=delete)
        say(f"{n_jobs} ended RayJob(s) {'deleted' if delete else 'would be deleted'}")
