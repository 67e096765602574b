"""`rcg run`."""

from flows.commands.terminal import StageName, Terminal, outcome_line, say


def command(stage: StageName) -> None:
    """Run one stage, or find that it is done: looks up, follows, resumes, never repeats work."""
    from flows.execution.project import Project
    from flows.execution.stage import run_stage

    outcome = run_stage(Project.here(), stage, Terminal())
    say(outcome_line(outcome, f"artifacts/{stage}"))
