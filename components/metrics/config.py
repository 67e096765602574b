"""The feature network of the metrics."""

from typing import Literal, Self

from pydantic import Field

from components.config import Config
from components.errors import ConfigError

Task = Literal["labels", "self"]
LOWEST_SIDE = 4


class FeatureConfig(Config):
    """The feature network. Bits of it change every metric, so runs are comparable only with equal values here."""

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

    def check_size(self, n_held_out: int) -> None:
        """Raises: ConfigError when the features are too many for a covariance over the held-out images."""
        if self.dim > n_held_out // 5:
            raise ConfigError(
                "too many features for so few held-out images: the Frechet distance would measure noise",
                got=f"evaluate.features.dim {self.dim} with {n_held_out} held-out images",
                expected=f"at most {n_held_out // 5}, a fifth of them",
                fix=f"set evaluate.features.dim: {n_held_out // 5}, or hold more images out"
                if n_held_out >= 10
                else "hold more images out (collect.splits)",
            )
