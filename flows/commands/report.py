"""`rcg report`: a model over time as one page that opens offline."""

from pathlib import Path

from components.errors import ConfigError
from flows.execution.project import Project
from flows.lineage.growth import read_growth
from flows.lineage.versions import read_story
from flows.pages.report import report_page


def write_report(target: Path) -> str:
    """Write the page; returns the line to print. Raises: MissingError when there is no model, ConfigError."""
    if target.is_dir():
        raise ConfigError("the report needs a file name", got=target, fix=f"rcg report {target / 'report.html'}")
    project = Project.here()
    story = read_story(project)
    text = report_page(story, read_growth(project.store, story.versions[-1].stages))
    temporary = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        temporary.replace(target)
    except OSError as error:
        raise ConfigError("the report cannot be written", got=f"{target}: {error}") from error
    return f"{len(story.versions)} version(s) of {story.model}, {len(story.decisions)} decision(s): {target}"
