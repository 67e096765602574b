"""What a text encoder is: one config per kind, and their union, which is the registry. Imports without torch."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field

from components.config import Config
from components.weights_file import WeightsFile

if TYPE_CHECKING:
    from components.base import Reader
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

    def build(self, artifact: "Reader | None" = None) -> "TextEncoder":  # noqa: ARG002
        """The encoder, with its random vectors."""
        from components.text.words import Words

        return Words(self)

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="words", dim=8, max_tokens=4, seed=0)


class PretrainedConfig(Config):
    """A published text encoder from a folder of one's own, read by transformers: MiniLM, T5, CLIP's text tower, …"""

    kind: Literal["pretrained"]
    folder: WeightsFile | None
    """A folder as Hugging Face has it: config.json, tokenizer.json and weights. Its sha256 is what `cd FOLDER;
    sha256sum config.json model.safetensors tokenizer.json | sha256sum` prints (null only in a saved encoder)."""
    pooling: Literal["mean", "cls", "model"]
    """The embedding: the mean of the tokens' states (MiniLM, T5), the first one, or the model's own (CLIP)."""
    max_tokens: int = Field(ge=1)
    """Tokens that are read (MiniLM 128, CLIP 77, Corgi's T5 80); what comes after is cut off."""

    def build(self, artifact: "Reader | None" = None) -> "TextEncoder":
        """The encoder of the folder, or one that an artifact holds, with weights still to be loaded.

        Raises: ConfigError without transformers, WeightsError for a folder that is not whole, or another one.
        """
        from components.text.pretrained import imported, rebuilt

        return imported(self) if artifact is None else rebuilt(self, artifact)


TextEncoderConfig = Annotated[WordsConfig | PretrainedConfig, Field(discriminator="kind")]
