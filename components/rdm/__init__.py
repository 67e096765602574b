"""Representation generators. To add one: a module here and one member in the union below, which is the registry.

Imports without torch: load_rdm() imports it.
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from components.rdm.config import RdmConfig
from components.rdm.projection import RdmProjectionConfig
from components.rdm.transformer import RdmTransformerConfig

if TYPE_CHECKING:
    from components.base import Reader
    from components.generators.base import Generator

RdmModelConfig = Annotated[RdmConfig | RdmTransformerConfig | RdmProjectionConfig, Field(discriminator="kind")]

__all__ = ["RdmConfig", "RdmModelConfig", "RdmProjectionConfig", "RdmTransformerConfig", "load_rdm"]


def load_rdm(artifact: "Reader") -> "Generator":
    """The trained representation generator of an artifact, in eval mode, without gradients."""
    from components.generators.files import load_generator

    return load_generator(artifact, RdmModelConfig)
