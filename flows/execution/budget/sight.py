"""Ready-made networks in place of trained ones, encoder and judge: files of timm models, tried before anything is
planned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import ConfigError, WeightsError

_PX = 96
"""Side at which convolutional networks look at pictures of 64 px and less: at 224 they take five times as long."""


def ready_made(file: Path | None, name: str | None) -> dict[str, Any] | None:
    """`encoder.model` of the file; None without one. Raises: ConfigError, WeightsError for a file of another model."""
    given = _given(file, name, "encoder", "--timm")
    if given is None:
        return None
    from flows.execution.checkpoints import timm_section

    model: dict[str, Any] = timm_section(*given, stage=None).section["model"]
    return model | {"input_px": min(_PX, model["input_px"])} if model["output"] == "pooled" else model


def ready_judge(file: Path | None, name: str | None, encoder: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """`evaluate.features.network` of the file; None without one.

    Raises: ConfigError, also for the file of the encoder, which would judge what was made to please it; WeightsError
    for a file of another model.
    """
    given = _given(file, name, "judge", "--judge-timm")
    if given is None:
        return None
    from components.encoders.timm import described
    from components.files import file_sha256
    from components.metrics.networks.config import TimmNetwork
    from components.weights_file import WeightsFile

    path, model = given
    if not path.is_file():
        raise WeightsError("the weights file of the judge does not exist", got=path)
    pin = WeightsFile(uri=str(path), sha256=file_sha256(path))
    if encoder is not None and encoder["weights"]["sha256"] == pin.sha256:
        raise ConfigError(
            "the encoder conditions the pictures, so it does not judge them",
            got=f"--judge {path}",
            fix="name the file of another model, or leave --judge out",
        )
    known = described(model, pin)
    input_px = min(_PX, known.input_px) if known.output == "pooled" else None
    config = TimmNetwork(kind="timm", name=model, input_px=input_px, weights=pin)
    config.load()
    found: dict[str, Any] = config.model_dump(mode="json")
    return found


def _given(file: Path | None, name: str | None, what: str, name_option: str) -> tuple[Path, str] | None:
    """Both, or None where neither is given. Raises: ConfigError for one without the other."""
    if file is not None and name is not None:
        return file, name
    if file is None and name is None:
        return None
    raise ConfigError(
        f"a ready-made {what} is a file and the name of its timm model",
        got=f"{name_option} without --{what}" if file is None else f"--{what} without {name_option}",
        fix="examples/encoder.py makes such a file and says both",
    )
