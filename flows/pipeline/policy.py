"""What is decided about finished models: when one is good enough, and when to make the next. No stage reads this."""

from typing import Literal

from pydantic import Field

from components.config import Config


class GateParams(Config):
    """When a challenger may become the champion. No stage reads it, so a change reruns nothing."""

    seed: int = Field(ge=0)
    """Seed of the images that both models draw, and of the bootstrap."""
    n: int = Field(ge=2)
    """Images drawn by each model."""
    n_bootstrap: int = Field(ge=20)
    """Resamples behind the interval of the difference."""
    level: float = Field(gt=0.5, lt=1)
    """Confidence level of that interval, two-sided."""
    margin: float = Field(ge=0)
    """The challenger's Frechet distance may exceed the champion's by this share of it, on all held-out images."""
    margin_known: float | None = Field(ge=0)
    """The same on the held-out images that the champion's collection had too: a batch of bad images moves the others
    in its own favor. null: not asked."""
    min_precision: float = Field(ge=0, le=1)
    """Least share of drawn images that look like held-out ones."""
    min_recall: float = Field(ge=0, le=1)
    """Least share of held-out images that the drawn ones cover."""
    max_memorization: float = Field(ge=0, le=1)
    """Greatest share of drawn images that are suspiciously close to a training image (see evaluate.percentile), in
    features and in pixels."""


class RetrainParams(Config):
    """When `rcg retrain` makes a new model, and from what. No stage reads it."""

    min_new_images: int = Field(ge=1)
    """With fewer new images nothing is done."""
    refit: Literal["never", "every_n", "drift"]
    """When encoder and codec are fitted anew, on all images: never; when refit_images came since; or when the new
    images' representations differ from the old ones' by more than max_drift."""
    refit_images: int = Field(ge=1)
    """For every_n: images that came since encoder and codec were fitted."""
    max_drift: float = Field(gt=0)
    """For drift: Frechet distance of new to old representations over that between two halves of the old ones."""
    init: Literal["none", "champion"]
    """champion: rdm and pixels start from the weights of the current champion."""
