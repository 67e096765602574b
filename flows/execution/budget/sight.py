"""A ready-made encoder in place of one that is trained: a file of a timm model, tried before anything is planned."""

from pathlib import Path
from typing import Any

from components.errors import ConfigError

_PX = 96
"""Side at which convolutional networks look at pictures of 64 px and less: at 224 they take five times as long."""


def ready_made(file: Path | None, name: str | None) -> dict[str, Any] | None:
    """`encoder.model` of the file; None without one. Raises: ConfigError, WeightsError for a file of another model."""
    if file is None and name is None:
        return None
    if file is None or name is None:
        raise ConfigError(
            "a ready-made encoder is a file and the name of its timm model",
            got="--timm without --encoder" if file is None else "--encoder without --timm",
            fix="examples/encoder.py makes such a file and says both",
        )
    from flows.execution.checkpoints import timm_section

    model: dict[str, Any] = timm_section(file, name, stage=None).section["model"]
    return model | {"input_px": min(_PX, model["input_px"])} if model["output"] == "pooled" else model
