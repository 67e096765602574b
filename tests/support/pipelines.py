"""The stages of presets."""

from pathlib import Path

import yaml

from flows.pipeline.table import Stage, pipeline

_PRESETS = Path(__file__).parents[2] / "presets"


def stages_of(preset: str) -> dict[str, Stage]:
    """What pipeline() makes of a preset."""
    return pipeline(yaml.safe_load((_PRESETS / f"{preset}.yaml").read_text()))
