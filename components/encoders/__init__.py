"""Frozen encoders: the union of their configs is the registry."""

from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from components.base import Reader
from components.encoders.base import Encoder, FrozenEncoder, constant_rows
from components.encoders.deit import DeitConfig
from components.encoders.dino import DinoConfig
from components.encoders.mocov3 import MoCoV3Config
from components.encoders.timm import TimmConfig
from components.errors import WeightsError
from components.weights import load_weights
from components.weights_file import WeightsFile

__all__ = [
    "DeitConfig", "DinoConfig", "Encoder", "EncoderConfig", "EncoderModel", "MoCoV3Config", "TimmConfig", "WeightsFile",
    "constant_rows", "load_encoder", "saved_config",
]  # fmt: skip

EncoderModel = TimmConfig | MoCoV3Config | DinoConfig | DeitConfig
EncoderConfig = Annotated[EncoderModel, Field(discriminator="kind")]

CONFIG, WEIGHTS = "config.json", "weights.safetensors"


def load_encoder(artifact: Reader) -> FrozenEncoder:
    """The frozen encoder of an encoder artifact, on CPU. Raises: WeightsError."""
    try:
        config: EncoderModel = TypeAdapter(EncoderConfig).validate_python(artifact.read_json(CONFIG))
    except ValidationError as error:
        raise WeightsError(
            f"the encoder's {CONFIG} is not valid", got=error, fix="run the encoder stage again"
        ) from error
    encoder = config.build()
    load_weights(encoder.network, artifact.path(WEIGHTS))
    return encoder


def saved_config(config: EncoderModel) -> dict[str, Any]:
    """What config.json holds: the config without the place that its weights came from."""
    return config.model_copy(update={"weights": None}).model_dump(mode="json")
