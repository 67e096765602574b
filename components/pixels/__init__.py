"""Pixel generators. To add one: a module here and one member in the union below, which is the registry.

Imports without torch: load_pixels() imports it.
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from components.pixels.adm import AdmConfig
from components.pixels.dit import DitConfig
from components.pixels.hybrid import HybridConfig
from components.pixels.ldm import LdmConfig
from components.pixels.mage import MageConfig

if TYPE_CHECKING:
    from components.base import Reader
    from components.generators.base import Generator

PixelConfig = Annotated[DitConfig | HybridConfig | AdmConfig | LdmConfig | MageConfig, Field(discriminator="kind")]

__all__ = ["PixelConfig", "load_pixels"]


def load_pixels(artifact: "Reader") -> "Generator":
    """The trained pixel generator of an artifact, in eval mode, without gradients."""
    from components.generators.files import load_generator

    return load_generator(artifact, PixelConfig)
