"""`rcg report`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.terminal import phases, say

if TYPE_CHECKING:
    from flows.execution.project import Project


def _quiet(_phase: str) -> None: ...


def command(
    file: Annotated[Path, typer.Argument(help="Where the page goes.")] = Path("report.html"),
) -> None:
    """Write one self-contained page about the model: its versions, their pictures and numbers, and what was decided."""
    from flows.execution.project import Project

    with phases("report", 3) as begin:
        line = write_report(Project.here(), file, begin)
    say(line)


def write_report(project: "Project", target: Path, begin: Callable[[str], None] = _quiet) -> str:
    """Write the page, calling `begin` at each of three phases; returns the line to print.

    Raises: MissingError when there is no model, ConfigError.
    """
    from components.errors import ConfigError
    from components.files import write_whole
    from flows.lineage.growth import read_growth
    from flows.lineage.story import read_story
    from flows.pages.report import report_page

    if target.is_dir():
        raise ConfigError("the report needs a file name", got=target, fix=f"rcg report {target / 'report.html'}")
    begin("reading versions and decisions")
    story = read_story(project)
    begin("comparing the newest pictures with the base")
    growth = read_growth(project.store, story.versions[-1].stages)
    begin("drawing the page")
    text = report_page(story, growth)
    try:
        write_whole(target, text)
    except OSError as error:
        raise ConfigError("the report cannot be written", got=f"{target}: {error}") from error
    return f"{len(story.versions)} version(s) of {story.model}, {len(story.decisions)} decision(s): {target}"
