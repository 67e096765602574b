"""The section bundle of params.yaml."""

from components.config import Config


class BundleParams(Config):
    """What goes into the bundle."""

    numerics: int
    """Raise it to force a new run."""
    with_encoder: bool
    """Include the encoder, which variations and interpolations of given pictures need."""
