"""The section text of params.yaml."""

from components.config import Config
from components.text.config import TextEncoderConfig


class TextParams(Config):
    """What reads captions and prompts."""

    numerics: int
    """Raise it to force a new run."""
    encoder: TextEncoderConfig
    """The frozen text encoder."""
    states: bool
    """Also cache the states of tokens, which conditions of kind text read by the sequence port."""
