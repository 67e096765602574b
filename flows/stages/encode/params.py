"""The section encode of params.yaml."""

from pydantic import Field

from components.config import Config
from components.images.config import ViewRecipe


class EncodeParams(Config):
    """What is cached of each picture."""

    numerics: int
    """Raise it to force a new run; all shards are made again."""
    batch_size: int = Field(ge=1)
    """Views per forward pass, in whole pictures; moves low-order bits."""
    views: ViewRecipe
    """The views of each picture."""
    max_reject_share: float = Field(ge=0, lt=1)
    """The stage fails when more than this share of the pictures have a representation without variance."""
