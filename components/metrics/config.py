"""The feature network of the metrics: trained on the spot, or ready-made from a file."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag

from components.config import Config
from components.errors import ConfigError
from components.metrics.advice import check_width
from components.metrics.networks.config import NetworkConfig, TimmNetwork

Task = Literal["labels", "self"]
LOWEST_SIDE = 4


class FeatureConfig(Config):
    """The feature network, trained here. Bits of it change every metric, so runs are comparable only with equal values
    here."""

    kind: Literal["trained"] = "trained"
    task: Literal["auto", "labels", "self"]
    """labels: classify; self: name the rotation and redraw the image; auto: labels where the collection has them."""
    px: int = Field(ge=LOWEST_SIDE)
    """Side at which the network, and the pixel distances, see every image."""
    width: int = Field(ge=8, multiple_of=8)
    """Channels of the first layer; two halvings later there are four times as many."""
    dim: int = Field(ge=2)
    """Number of features; at most a fifth of the held-out images."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(task="auto", px=8, width=8, dim=2)

    def resolve(self, classes: list[str] | None) -> Task:
        """What `auto` means here; one class is none. Raises: ConfigError when labels are asked for in vain."""
        n_classes = len(classes or ())
        if self.task == "labels" and n_classes < 2:
            raise ConfigError(
                "evaluate.features.task is labels, but the collection has too few",
                got=f"{n_classes} class(es)",
                expected="2 or more",
                fix="set evaluate.features.task: auto, or label the collection",
            )
        return "labels" if n_classes > 1 and self.task != "self" else "self"

    def side(self, px: int) -> int:  # noqa: ARG002  (that of the network)
        """Side at which pictures of px pixels are seen."""
        return self.px

    def check_size(self, n_held_out: int) -> None:
        """Raises: ConfigError when the features are too many for a covariance over the held-out images."""
        check_width(self.dim, n_held_out)


class ReadyFeatures(Config):
    """A network from a file, which neither learned from these pictures nor conditioned any: the judge to prefer."""

    kind: Literal["ready"]
    network: NetworkConfig
    """Which one, and its file."""
    dim: int | None = Field(ge=2)
    """Leading principal axes of the training pictures' features that are compared, at most a fifth of the held-out
    images; null: all features, as published numbers have it."""
    allow_same: bool
    """Judge in features of the network that conditioned the generator, which flatters it; the page then says so."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(kind="ready", network=TimmNetwork.tiny(), dim=2, allow_same=False)

    def side(self, px: int) -> int:
        """Side at which pictures of px pixels are seen: the network resizes them itself."""
        return px

    def check_size(self, n_held_out: int) -> None:
        """Raises: ConfigError when the features are too many for a covariance over the held-out images."""
        if self.dim is not None:
            check_width(self.dim, n_held_out)


def _kind(value: Any) -> Any:
    """Params written before there was a choice name no kind."""
    return value.get("kind", "trained") if isinstance(value, Mapping) else getattr(value, "kind", None)


Features = Annotated[
    Annotated[FeatureConfig, Tag("trained")] | Annotated[ReadyFeatures, Tag("ready")], Discriminator(_kind)
]
