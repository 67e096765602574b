"""`rcg report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flows.execution.project import Project


def command(
    file: Annotated[Path, typer.Argument(help="Where the page goes.")] = Path("report.html"),
) -> None:
    """Write one self-contained page about the model: its versions, their pictures and numbers, and what was decided."""
    from flows.execution.project import Project

    typer.echo(write_report(Project.here(), file))


def write_report(project: "Project", target: Path) -> str:
    """Write the page; returns the line to print. Raises: MissingError when there is no model, ConfigError."""
    from components.errors import ConfigError
    from components.files import write_whole
    from flows.lineage.growth import read_growth
    from flows.lineage.story import read_story
    from flows.pages.report import report_page

    if target.is_dir():
        raise ConfigError("the report needs a file name", got=target, fix=f"rcg report {target / 'report.html'}")
    story = read_story(project)
    text = report_page(story, read_growth(project.store, story.versions[-1].stages))
    try:
        write_whole(target, text)
    except OSError as error:
        raise ConfigError("the report cannot be written", got=f"{target}: {error}") from error
    return f"{len(story.versions)} version(s) of {story.model}, {len(story.decisions)} decision(s): {target}"
