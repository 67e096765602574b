"""The section collect of params.yaml."""

from typing import Literal

from pydantic import Field

from components.collection.config import SplitConfig
from components.config import Config
from components.images.config import DecodeRecipe


class CollectParams(Config):
    """What the collection is made of."""

    numerics: int
    """Raise it to force a new run."""
    base: Literal["all"] | list[str]
    """Chunks that encoder and codec are fitted on. Naming them (c00000, …) keeps both as the collection grows."""
    labels: Literal["metadata", "folder", "none"]
    """Where labels come from: the label column of metadata.csv or metadata.jsonl, or the folder a picture is in."""
    split: SplitConfig
    """How pictures are held out."""
    decode: DecodeRecipe
    """How files become pixels."""
    max_reject_share: float = Field(ge=0, lt=1)
    """The stage fails when more than this share of the files cannot be decoded."""
