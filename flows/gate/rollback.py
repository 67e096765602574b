"""The champion before the present one becomes the champion again."""

from components.errors import ArtifactError, MissingError
from flows.execution.project import Project
from flows.gate.champion import deciding, open_aliases
from flows.gate.decisions import Decisions
from flows.gate.drawing import draw_images, fetch_bundle
from flows.registry import CHAMPION, Version


def rollback(project: Project, number: int | None) -> tuple[Version, Version | None]:
    """Make the champion before this one the champion again, or version `number`; its bundle is tried first.

    Returns (the champion now, the champion until now). Raises: MissingError when there is nothing to go back to.
    """
    tracking, aliases = open_aliases(project)
    with deciding(project.store, aliases) as champion:
        present = aliases.of(CHAMPION)
        target = aliases.version(number or _before(champion.decisions, present))
        if present is not None and target.number == present.number:
            raise ArtifactError(f"version {target.number} is the champion already", fix="name another one with --to")
        folder = fetch_bundle(tracking, aliases.name, target, project.models, project.store)
        draw_images(folder, 1, 0, "cpu")
        entry = champion.change("rollback", target, present, champion.decisions.next_number() - 1)
    if entry.state == "void":
        raise ArtifactError("the rollback was not carried out", got=entry.why, fix="run it again")
    return target, present


def _before(decisions: Decisions, present: Version | None) -> int:
    champions = decisions.history()[0].champions()
    if present is not None and present.number not in champions:
        champions.append(present.number)  # made champion by hand
    if len(champions) < 2:
        raise MissingError(
            "there is no earlier champion to go back to",
            got=f"champions so far: {', '.join(map(str, champions)) or 'none'}",
            fix="name a version: rcg rollback --to N",
        )
    return champions[-2]
