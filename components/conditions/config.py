"""Configs of conditions. Imports without torch."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.config import Config, check_divides
from components.target import KNOWN, LOW_RES

Port = Literal["vector", "sequence", "spatial"]
VectorPort = Literal["vector", "sequence"]


class BaseConditionConfig(Config):
    """What every condition says, besides the field of the batch that it reads."""

    sampled: ClassVar[bool] = False
    """Whether it is sampled by the frequencies of training where the field is absent."""
    inpaints: ClassVar[bool] = False
    """Whether it is what is known of the target: no field of the cache, but drawn by training, and given by an edit."""
    kind: str
    port: Port | Literal["vector_and_sequence"]
    """How it enters the network. vector: added to the time, or MAGE's class token; sequence: keys and values of
    attention; spatial: input channels beside the target's. A network that lacks the port is an error."""
    drop_prob: float = Field(ge=0, lt=1)
    """Share of training rows for which it is replaced by its learned null (0..1); guidance needs more than 0."""

    @property
    def name(self) -> str:
        """Its name among the conditions of a generator."""
        return self.kind

    @property
    def ports(self) -> tuple[Port, ...]:
        """Ports by which it enters."""
        return ("vector", "sequence") if self.port == "vector_and_sequence" else (self.port,)

    @property
    def may_be_absent(self) -> bool:
        """Whether sampling does without the field: by frequencies of training, a trained null, or nothing known."""
        return self.sampled or self.inpaints or getattr(self, "missing", "skip") == "null"


class RepresentationConfig(BaseConditionConfig):
    """RCG's condition: the representation of the image."""

    field: ClassVar[str] = "representation"
    kind: Literal["representation"]
    port: VectorPort
    project: bool
    """Map it to the width of its port by a learned matrix; false: feed it as it is, to a port of its width (LDM)."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="representation", port="vector", drop_prob=0.1, project=True)


class ClassConfig(BaseConditionConfig):
    """The label of the image."""

    field: ClassVar[str] = "class"
    sampled = True
    kind: Literal["class"]
    port: VectorPort
    missing: Literal["skip", "null"]
    """Training images without a label. skip: they are left out; null: the learned null stands for the label."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="class", port="vector", drop_prob=0.1, missing="null")


class ClusterConfig(BaseConditionConfig):
    """The k-means cluster of the representation: a baseline."""

    field: ClassVar[str] = "representation"
    sampled = True
    kind: Literal["cluster"]
    port: VectorPort
    n_clusters: int = Field(ge=1)
    """Number of clusters."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="cluster", port="vector", drop_prob=0.1, n_clusters=4)


class TextConfig(BaseConditionConfig):
    """The caption of the image, as the stage `text` reads it: one vector, or the states of its tokens.

    A picture with several captions has another one each time that it is trained on.
    """

    kind: Literal["text"]
    port: VectorPort
    """vector: the embedding of the caption; sequence: the states of its tokens (set text.states: true)."""
    missing: Literal["skip", "null"]
    """Training images without a caption. skip: they are left out; null: the learned null stands for it."""
    project: bool = Field(default=True, exclude_if=bool)
    """Map it to the width of its port by a learned matrix; false: feed it as it is, to a port of its width."""

    @property
    def field(self) -> str:
        """The field that it reads."""
        return "text" if self.port == "vector" else "tokens"

    @property
    def name(self) -> str:
        return self.field

    @property
    def may_be_absent(self) -> bool:
        return self.missing == "null" or self.drop_prob > 0

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="text", port="vector", drop_prob=0.1, missing="null")


class TextTransformerConfig(BaseConditionConfig):
    """The caption, read by a transformer that is trained along with the generator. Paper: 2112.10741 (GLIDE), sec. 2.3.

    The state of the last position enters by the vector port, those of all positions by the sequence port. The null is
    the empty caption, which is learned padding alone.
    """

    field: ClassVar[str] = "ids"
    kind: Literal["text_transformer"]
    port: Literal["vector_and_sequence"]
    """By both: added to the time, and keys and values of attention."""
    missing: Literal["skip", "null"]
    """Training images without a caption. skip: they are left out; null: the empty caption stands for it."""
    width: int = Field(ge=1)
    """Width of its states (GLIDE: 512)."""
    depth: int = Field(ge=1)
    """Its blocks (16)."""
    heads: int = Field(ge=1)
    """Its attention heads (8); must divide width."""
    project: bool
    """Map the states to the width of the sequence port by a learned matrix; false: feed them as they are, to a port of
    their width (GLIDE)."""

    @property
    def may_be_absent(self) -> bool:
        return self.missing == "null" or self.drop_prob > 0

    @model_validator(mode="after")
    def _divides(self) -> Self:
        check_divides("heads", self.heads, "width", self.width)
        return self

    @classmethod
    def tiny(cls) -> Self:
        return cls(
            kind="text_transformer",
            port="vector_and_sequence",
            drop_prob=0.1,
            missing="null",
            width=8,
            depth=2,
            heads=2,
            project=True,
        )


class FieldConditionConfig(BaseConditionConfig):
    """Any field of the cache."""

    field: str = Field(min_length=1)
    """Name of the field; the cache says which it has."""
    missing: Literal["skip", "null"]
    """Where there is nothing. skip: training leaves the images out and sampling is refused; null: the learned null."""

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.field}"


class VectorConfig(FieldConditionConfig):
    """A field of vectors, such as the embedding of a caption."""

    kind: Literal["vector"]
    port: VectorPort
    project: bool = Field(default=True, exclude_if=bool)
    """Map it to the width of its port by a learned matrix; false: feed it as it is, to a port of its width."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="vector", field="text", port="vector", drop_prob=0.1, missing="null")


class SequenceConfig(FieldConditionConfig):
    """A ragged field of vectors, such as the states of a caption's tokens."""

    kind: Literal["sequence"]
    port: Literal["sequence"]
    positions: bool
    """Add sinusoids of the place in the sequence; false: the rows know theirs, as those of a text encoder do."""
    project: bool = Field(default=True, exclude_if=bool)
    """Map it to the width of its port by a learned matrix; false: feed it as it is, to a port of its width."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="sequence", field="tokens", port="sequence", drop_prob=0.1, missing="null", positions=False)


class ImageConfig(FieldConditionConfig):
    """A field of images, such as a target of low resolution; resized to the target's grid."""

    kind: Literal["image"]
    port: Literal["spatial"]

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="image", field="low_res", port="spatial", drop_prob=0.1, missing="null")


class MaskedImageConfig(BaseConditionConfig):
    """The target with a part masked, and the mask: makes an inpainter. Training masks boxes and strokes.

    Without anything known it generates, and guidance keeps what is known. Paper: 2112.10741 (GLIDE), sec. 2.4.
    """

    field: ClassVar[str] = KNOWN
    inpaints = True
    kind: Literal["masked_image"]
    port: Literal["spatial"]

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="masked_image", port="spatial", drop_prob=0.1)


class LowResConfig(BaseConditionConfig):
    """The small image of which an upsampler makes a large one, resized to its size, and the level of its noise.

    Training adds Gaussian noise of a random level to the small image, whose level is seen, too, so that the upsampler
    does not rely on the image where a generator errs.
    Paper: 2106.15282 (cascades), sec. 4; the image alone: 2105.05233 (ADM-U).
    """

    field: ClassVar[str] = LOW_RES
    kind: Literal["low_res"]
    port: Literal["spatial"]
    noise: float = Field(ge=0, le=1)
    """Largest standard deviation of the noise, in units of half the range of pixels (0.5: a quarter of the range)."""
    residual: bool = Field(default=False, exclude_if=lambda residual: not residual)
    """The network predicts what the clean image has beside the enlarged small one; with prediction x0. Learned sooner:
    an untrained network enlarges by interpolation. Not ADM-U's and GLIDE's."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="low_res", port="spatial", drop_prob=0.0, noise=0.3)


ConditionConfig = Annotated[
    RepresentationConfig
    | ClassConfig
    | ClusterConfig
    | TextConfig
    | TextTransformerConfig
    | VectorConfig
    | SequenceConfig
    | ImageConfig
    | MaskedImageConfig
    | LowResConfig,
    Field(discriminator="kind"),
]
