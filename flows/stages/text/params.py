"""The section text of params.yaml."""

from components.config import Config
from components.text.config import JointConfig, TextEncoderConfig


class TextParams(Config):
    """What reads captions and prompts."""

    numerics: int
    """Raise it to force a new run."""
    encoder: TextEncoderConfig
    """The frozen text encoder."""
    states: bool
    """Also cache the states of tokens, which conditions of kind text read by the sequence port."""
    joint: JointConfig | None
    """A space that captions and representations share, trained on the captioned pictures; null: none."""
