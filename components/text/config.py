"""What a text encoder is: one config per kind, and their union, which is the registry. Imports without torch."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.config import Config, check_divides
from components.weights_file import WeightsFile

if TYPE_CHECKING:
    from components.base import Reader
    from components.text.base import TextEncoder
    from components.text.pretrained import Pretrained


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


class ClipTextConfig(Config):
    """CLIP's text tower, beside its image tower in one file: the two share a space without any training."""

    kind: Literal["clip"]
    weights: WeightsFile | None
    """OpenAI's file, open_clip's or Hugging Face's (null only in a saved encoder)."""
    tokenizer: WeightsFile | None
    """tokenizer.json of a Hugging Face folder, or bpe_simple_vocab_16e6.txt.gz of OpenAI's code (null likewise)."""
    width: int = Field(ge=2)
    """Width of the transformer; a multiple of heads (beside ViT-B: 512)."""
    depth: int = Field(ge=1)
    """Number of transformer blocks (12)."""
    heads: int = Field(ge=1)
    """Attention heads (64 channels each)."""
    mlp_ratio: float = Field(gt=0)
    """Hidden width of each block's MLP over its width (published: 4)."""
    joint_dim: int = Field(ge=2)
    """Width of the space of images and texts (beside ViT-B: 512)."""
    vocabulary: int = Field(ge=2, le=10_000_000)
    """Tokens that it knows; the last one ends a text (49,408)."""
    n_positions: int = Field(ge=1)
    """Positions that the file has (77)."""
    quick_gelu: bool
    """As of the image tower."""
    max_tokens: int = Field(ge=1)
    """Tokens that are read, at most n_positions; what comes after is cut off."""

    pooling: ClassVar[Literal["model"]] = "model"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_divides("heads", self.heads, "width", self.width)
        if self.max_tokens > self.n_positions:
            raise ValueError(f"max_tokens is {self.max_tokens}, but there are {self.n_positions} positions")
        return self

    def build(self, artifact: "Reader | None" = None) -> "Pretrained":
        """The encoder, with weights still to be loaded. Raises: ConfigError without transformers, WeightsError."""
        from components.text.clip import build

        return build(self, artifact)


class BpeConfig(Config):
    """A byte-level byte-pair encoding, as GPT-2's and GLIDE's: texts -> ids of tokens, in lower case.

    For a generator that learns to read along: a condition of kind text_transformer.
    """

    file: WeightsFile | None
    """A tokenizer.json as Hugging Face has it (GLIDE: that of gpt2); null: the encoding is learned on the captions."""
    n_ids: int | None = Field(ge=256)
    """Most tokens that are learned, bytes among them; null for a file, which has its own (gpt2: 50257)."""
    max_tokens: int = Field(ge=1)
    """Tokens that are read (GLIDE: 128); what comes after is cut off."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.n_ids is None):
            raise ValueError("an encoding is learned, or read from a file: set n_ids or file, and the other to null")
        return self

    @classmethod
    def tiny(cls) -> Self:
        return cls(file=None, n_ids=280, max_tokens=8)


TextEncoderConfig = Annotated[WordsConfig | PretrainedConfig | ClipTextConfig, Field(discriminator="kind")]
