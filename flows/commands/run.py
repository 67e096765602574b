"""`rcg run`."""

import typer

from flows.commands.terminal import StageName, Terminal, outcome_line


def command(stage: StageName) -> None:
    """Run one stage, or find that it is done: looks up, follows, resumes, never repeats work."""
    from flows.execution.project import Project
    from flows.execution.stage import run_stage

    outcome = run_stage(Project.here(), stage, Terminal())
    typer.echo(outcome_line(outcome, f"artifacts/{stage}"))
