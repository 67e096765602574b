"""The stages of presets, and sections that none of the small ones has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flows.pipeline.table import Stage, pipeline

_PRESETS = Path(__file__).parents[2] / "presets"


def stages_of(preset: str) -> dict[str, Stage]:
    """What pipeline() makes of a preset."""
    return pipeline(yaml.safe_load((_PRESETS / f"{preset}.yaml").read_text()))


def upsampler_section(pixels: Mapping[str, Any], *conditions: Any, sampling: Any, train: Any) -> dict[str, Any]:
    """An upsampler to 16 pixels by the network of the section `pixels`; `conditions` beside the small image."""
    low_res = {"kind": "low_res", "port": "spatial", "drop_prob": 0.0, "noise": 0.0}
    return {
        "numerics": 1,
        "px": 16,
        "seed": 0,
        "noise": 0.0,
        "n_val": 4,
        "ema": None,
        "sampling": sampling,
        "model": pixels["model"] | {"conditions": [*conditions, low_res]},
        "train": train,
    }
