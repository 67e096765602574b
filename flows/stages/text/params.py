"""The section text of params.yaml."""

from typing import Self

from pydantic import Field, model_validator

from components.config import Config, added
from components.text.config import BpeConfig, TextEncoderConfig
from components.training.config import TrainConfig
from components.weights_file import WeightsFile


class JointConfig(Config):
    """A space of images and texts. Trained on captioned pictures: linear heads on what is frozen, by contrast.

    `text` then is the caption in that space; the states of tokens stay as they are.
    """

    dim: int | None = Field(ge=2)
    """Width of the space; null: that of the representations, which stay as they are, as `by: nearest` needs."""
    seed: int = Field(ge=0)
    """Seed of the heads."""
    train: TrainConfig | None
    """The training run, of seconds; null: nothing is trained, for the two towers of one CLIP, which share a space."""

    weights: WeightsFile | None = added()
    """weights.safetensors of another project's stage text, whose heads are taken as they are; null: none."""

    @model_validator(mode="after")
    def _is_theirs(self) -> Self:
        if self.train is not None and self.weights is not None:
            raise ValueError("heads are either trained or imported; set train: null, or weights: null")
        if self.train is None and self.weights is None and self.dim is not None:
            raise ValueError("a space that nothing is trained for has the width that it has; set dim: null")
        return self

    @classmethod
    def tiny(cls) -> Self:
        return cls(dim=6, seed=0, train=TrainConfig.tiny())


class TextParams(Config):
    """What reads captions and prompts."""

    numerics: int
    """Raise it to force a new run."""
    encoder: TextEncoderConfig | None
    """The frozen text encoder; null: none, where only a byte-pair encoding is needed."""
    states: bool
    """Also cache the states of tokens, which conditions of kind text read by the sequence port."""
    joint: JointConfig | None
    """A space that captions and representations share, trained on the captioned pictures; null: none."""
    bpe: BpeConfig | None = added()
    """A byte-pair encoding, for conditions of kind text_transformer; null: none."""

    @model_validator(mode="after")
    def _reads(self) -> Self:
        if self.encoder is None and self.bpe is None:
            raise ValueError("text reads nothing: set text.encoder, text.bpe or both, or text: null")
        if self.encoder is None and (self.states or self.joint is not None):
            raise ValueError("states and joint are of text.encoder, which is null; set states: false and joint: null")
        return self
