"""DeiT: a ViT trained with labels. Paper: 2012.12877."""

from torch import nn

from components.encoders.base import FrozenEncoder
from components.encoders.config import DeitConfig
from components.encoders.published import headed_vit


def build(config: DeitConfig) -> FrozenEncoder:
    """The encoder, with fresh weights."""
    return headed_vit(config, lambda: nn.Linear(config.width, config.n_classes))
