"""Text encoders: captions and prompts -> one vector, and the states of tokens. Imports without torch: load_text() does.

To add one: a config and a class here, and a member of the union in config.py, which is the registry.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.base import Reader
    from components.text.model import TextModel

__all__ = ["load_text"]


def load_text(artifact: "Reader") -> "TextModel":
    """The text model of an artifact, on CPU. Raises: WeightsError."""
    from components.text.model import load

    return load(artifact)
