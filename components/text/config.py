"""What a text encoder is: one config per kind, and their union, which is the registry. Imports without torch."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from components.config import Config

if TYPE_CHECKING:
    from components.text.base import TextEncoder


class WordsConfig(Config):
    """Words, their parts and pairs of neighbors, each a fixed random vector: knows spelling, and no meaning.

    Needs no file and no library; what words mean of pictures is for the generator to learn, or for `joint`.
    """

    kind: Literal["words"]
    dim: int = Field(ge=2, multiple_of=2)
    """Width of the embedding and of the states."""
    max_tokens: int = Field(ge=1)
    """Words that are read; what comes after is cut off."""
    seed: int = Field(ge=0)
    """Seed of the random vectors."""

    def build(self) -> "TextEncoder":
        """The encoder, with its random vectors."""
        from components.text.words import Words

        return Words(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="words", dim=8, max_tokens=4, seed=0)


TextEncoderConfig = WordsConfig
