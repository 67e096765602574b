"""The representation generator. Imports without torch: load_rdm() imports it."""

from typing import TYPE_CHECKING

from components.rdm.config import RdmConfig

if TYPE_CHECKING:
    from components.base import Reader
    from components.generators.base import Generator

__all__ = ["RdmConfig", "load_rdm"]


def load_rdm(artifact: "Reader") -> "Generator":
    """The trained representation generator of an artifact, in eval mode, without gradients."""
    from components.generators.files import load_generator

    return load_generator(artifact, RdmConfig)
