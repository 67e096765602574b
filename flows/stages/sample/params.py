"""The section sample of params.yaml."""

from typing import Literal

from pydantic import Field

from components.config import Config
from components.generators.sampling import Sampling


class SampleParams(Config):
    """What is drawn. None of it retrains a generator."""

    numerics: int
    """Raise it to force a new run."""
    n: int = Field(ge=1)
    """Number of images."""
    batch_size: int = Field(ge=1)
    """Images drawn together: the unit of work that is shared out to the workers, and part of the images' bits."""
    seed: int = Field(ge=0)
    """Image i depends on this seed and on i alone."""
    representations: Literal["rdm", "oracle"] | None
    """rdm: sampled; oracle: of real images of the val split, the upper bound of what an RDM could give; null: none, as
    the pixel generator has no condition on them."""
    grid: int = Field(ge=1)
    """Images shown in pictures/grid.png, the first ones."""
    rdm: Sampling | None
    """How representations are sampled; null where rdm is."""
    pixels: Sampling
    """How images are drawn; its kind is that of the pixel generator."""
