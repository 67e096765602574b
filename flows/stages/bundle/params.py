"""The section bundle of params.yaml."""

from components.bundle.system import SamplingDefaults
from components.config import Config


class BundleParams(Config):
    """What goes into the bundle."""

    numerics: int
    """Raise it to force a new run."""
    with_encoder: bool
    """Include the encoder, which variations and interpolations of given pictures need."""
    sampling: SamplingDefaults
    """How images are drawn from the bundle unless the caller says otherwise."""
