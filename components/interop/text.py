"""Importing a text encoder that a config names."""

from components.interop.clip import ClipTextLayout
from components.interop.layout import adopt
from components.text.base import TextEncoder
from components.text.config import ClipTextConfig, TextEncoderConfig
from components.weights import required

WHERE = "text.encoder.weights"


def import_text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """The encoder with the weights, if it has some, that its config names. Raises: WeightsError, ConfigError."""
    if not isinstance(config, ClipTextConfig):
        return config.build()
    tower = config.build()
    adopt(tower.network, required(config.weights, WHERE), (ClipTextLayout(),), where=WHERE)
    return tower
