"""Importing a text encoder that a config names."""

from components.interop.clip import ClipTextLayout
from components.interop.glide_clip import GlideClipTextLayout
from components.interop.layout import Layout, adopt
from components.text.base import TextEncoder
from components.text.config import ClipTextConfig, TextEncoderConfig
from components.weights import required

LAYOUTS: tuple[Layout, ...] = (ClipTextLayout(), GlideClipTextLayout())
WHERE = "text.encoder.weights"


def import_text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """The encoder with the weights, if it has some, that its config names. Raises: WeightsError, ConfigError."""
    if not isinstance(config, ClipTextConfig):
        return config.build()
    tower = config.build()
    adopt(tower.network, required(config.weights, WHERE), LAYOUTS, where=WHERE)
    return tower
