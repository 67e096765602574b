"""`rcg init`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.snapshot import snapshot
from flows.commands.terminal import finite, say, say_lines


def command(
    source: Annotated[str, typer.Argument(help="`demo`, `handwriting`, a folder of pictures or s3://bucket/prefix.")],
    minutes: Annotated[
        float, typer.Option(help="Time that all stages may take on this machine while it is quiet.", callback=finite)
    ] = 45.0,
    encoder: Annotated[
        Path | None, typer.Option(help="A file of an encoder that is not trained here, of the timm model --timm.")
    ] = None,
    timm: Annotated[str | None, typer.Option(help="timm's name of the model of --encoder.")] = None,
    judge: Annotated[
        Path | None, typer.Option(help="A file of a network that judges and is not the encoder, of --judge-timm.")
    ] = None,
    judge_timm: Annotated[str | None, typer.Option(help="timm's name of the model of --judge.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite params.yaml without asking.")] = False,
) -> None:
    """Look at the pictures of SOURCE, time this machine, and write params.yaml and dvc.yaml that use the time well."""
    from dataclasses import replace

    from components.collection.source import open_source
    from components.files import write_whole
    from flows.execution.budget.expected import keep_expected
    from flows.execution.budget.plan import check_minutes, plan
    from flows.execution.budget.sight import ready_judge, ready_made
    from flows.execution.budget.speeds import measure
    from flows.execution.budget.survey import look
    from flows.execution.budget.telling import outlook_lines, plan_lines, seen_lines, time_lines
    from flows.execution.project import Project
    from flows.pipeline.params import check_params
    from flows.pipeline.plan import write_plan
    from flows.settings import checked_source
    from flows.yaml_files import yaml_text

    check_minutes(minutes)
    project, target = Project.here(), Path("params.yaml")
    uri = checked_source(source)
    seer = ready_made(encoder, timm)
    survey = replace(look(open_source(uri)), encoder=seer, judge=ready_judge(judge, judge_timm, seer))
    say_lines(seen_lines(survey))
    if target.exists() and not force:
        _ask(target)
    speeds = measure(survey, project.settings.worker, lambda line: say(f"init: {line}", err=True))
    found = plan(survey, speeds, minutes)
    params = check_params(found.params, "what rcg init writes")
    is_new = uri != project.settings.source
    say(snapshot(project, source, rebuild=is_new, shrink=is_new))
    headline = f"{survey.n} pictures at {found.size} px in {minutes:g} minutes on {speeds.device}: by `rcg init`."
    write_whole(target, f"# {headline}\n{yaml_text(found.params)}")
    sections = params.model_dump(mode="json")
    write_plan(project.root, sections)
    keep_expected(project.root, sections, found.seconds)
    say_lines(["", *plan_lines(survey, speeds, found), "", *time_lines(found, speeds, minutes)])
    say_lines([*outlook_lines(survey, speeds, found), "", f"{target} and dvc.yaml are written; next: rcg repro"])


def _ask(target: Path) -> None:
    """Raises: ConfigError where the answer is no, or nobody is there to give one."""
    from components.errors import ConfigError

    try:
        agreed = typer.confirm(f"{target} exists; overwrite it?")
    except typer.Abort:  # no terminal
        say("", err=True)
        agreed = False
    if not agreed:
        fix = "`rcg init … --force` overwrites it"
        raise ConfigError(f"{target} stays as it is, and nothing is written", fix=fix)
