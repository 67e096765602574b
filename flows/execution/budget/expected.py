"""What each stage of a plan is expected to take, kept beside the project, so that `rcg explain` says the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.documents import read_json
from components.errors import ArtifactError
from components.files import write_whole
from flows.identity.artifact import canonical_json, digest_of, readable_json

FILE = Path(".rcg/expected.json")


def keep_expected(root: Path, sections: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
    """Remember them for exactly these sections."""
    found = {stage: {"section": _digest(sections[stage]), "seconds": seconds[stage]} for stage in seconds}
    write_whole(root / FILE, readable_json(found, str(FILE)))


def expected(root: Path, sections: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of the stages whose params are still those of the plan; none without one, or where it is damaged."""
    try:
        found = read_json(root / FILE)
        return {
            stage: float(entry["seconds"])
            for stage, entry in found.items()
            if stage in sections and entry["section"] == _digest(sections[stage])
        }
    except (ArtifactError, AttributeError, LookupError, TypeError, ValueError):
        return {}


def _digest(section: Any) -> str:
    return digest_of(canonical_json(section))
