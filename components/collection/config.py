"""How a collection is held out."""

from pydantic import Field

from components.config import Config


class SplitConfig(Config):
    """Shares of the three splits."""

    seed: int = Field(ge=0)
    """Another seed deals all pictures anew."""
    val_share: float = Field(gt=0, lt=0.5)
    """Share of the pictures held out to choose options on."""
    test_share: float = Field(gt=0, lt=0.5)
    """Share of the pictures held out to report on."""
    near_bits: int = Field(ge=0, le=32)
    """Pictures whose 128-bit difference hashes differ in at most this many bits stay together; 0: equal hashes only."""

    @classmethod
    def tiny(cls) -> "SplitConfig":
        return cls(seed=0, val_share=0.2, test_share=0.2, near_bits=0)
