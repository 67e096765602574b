"""Configs of conditions. Imports without torch."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from components.config import Config

Port = Literal["vector", "sequence"]


class BaseConditionConfig(Config):
    """What every condition says."""

    field: ClassVar[str]
    """Field of the batch that it reads."""
    sampled: ClassVar[bool]
    """Whether sampling can do without the field, by the frequencies of training."""
    port: Port
    """How it enters the network. vector: added to the time, or MAGE's class token; sequence: keys and values of
    attention. A network that lacks the port is an error."""
    drop_prob: float = Field(ge=0, lt=1)
    """Share of training rows for which it is replaced by its learned null (0..1); guidance needs more than 0."""


class RepresentationConfig(BaseConditionConfig):
    """RCG's condition: the representation of the image."""

    field = "representation"
    sampled = False
    kind: Literal["representation"]
    project: bool
    """Map it to the width of its port by a learned matrix; false: feed it as it is, to a port of its width (LDM)."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="representation", port="vector", drop_prob=0.1, project=True)


class ClassConfig(BaseConditionConfig):
    """The label of the image."""

    field = "class"
    sampled = True
    kind: Literal["class"]
    missing: Literal["skip", "null"]
    """Training images without a label. skip: they are left out; null: the learned null stands for the label."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="class", port="vector", drop_prob=0.1, missing="null")


class ClusterConfig(BaseConditionConfig):
    """The k-means cluster of the representation: a baseline."""

    field = "representation"
    sampled = True
    kind: Literal["cluster"]
    n_clusters: int = Field(ge=1)
    """Number of clusters."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="cluster", port="vector", drop_prob=0.1, n_clusters=4)


ConditionConfig = Annotated[RepresentationConfig | ClassConfig | ClusterConfig, Field(discriminator="kind")]
