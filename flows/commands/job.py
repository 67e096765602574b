"""`rcg job`."""

from typing import Annotated

import typer

from flows.commands.terminal import Terminal, outcome_line, say


def command(spec: Annotated[str, typer.Argument(help="URI of a spec.json in a store.")]) -> None:
    """Execute one prepared run from its spec alone: what a cluster's pods call."""
    from flows.execution.prepared import run_spec
    from flows.execution.project import Project

    outcome = run_spec(spec, Project.here(), Terminal())
    say(outcome_line(outcome, spec.removesuffix("/spec.json")))
