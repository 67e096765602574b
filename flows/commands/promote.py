"""`rcg promote`."""

from typing import Annotated

import typer

from flows.commands.terminal import phases, say


def command(
    version: Annotated[int | None, typer.Option(help="Version to judge; the challenger when left out.", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and decide, but change nothing.")] = False,
) -> None:
    """Judge the challenger against the champion, and make it the champion if the gate lets it pass.

    Exit code 3 when it does not.
    """
    from flows.execution.project import Project
    from flows.gate.promotion import N_PHASES, promote

    with phases("promote", N_PHASES) as begin:
        outcome = promote(Project.here(), number=version, dry_run=dry_run, begin=begin)
    say(outcome.text)
    raise typer.Exit(0 if outcome.result in ("promoted", "champion") else 3)
