"""Under which conditions numbers were measured: numbers of different protocols say nothing about each other."""

import hashlib
import json
from collections.abc import Iterable

from components.config import Config
from components.errors import ConfigError

NUMERICS = 1
"""Raised when the same protocol would give other numbers."""
INCEPTION_CHUNK = 5000
"""Images of one part of the inception score, as in every published number."""
NEIGHBOR_REFERENCES = 10_000
"""Most reference images of precision, recall, density and coverage, as in ADM's suite."""


class Protocol(Config):
    """All that a number depends on besides the images that it judges; `digest` stands beside the number.

    What the images were sampled with (guidance, steps) belongs to them, not to the ruler: that is what one compares.
    """

    network: dict[str, str]
    """kind, model, sha256 of the weights, and how images are resized."""
    pictures: str
    """What is done to a picture before the network's own resize."""
    reference: str
    """Digest of the reference's content."""
    n_reference: int | None
    """Pictures of the reference; None where a file holds its statistics alone."""
    reference_statistics: str
    """`stored` in the reference's file, or `measured` from its pictures."""
    n: int
    """Pictures that are judged."""
    seed: int
    """Of random directions, subsets and resampling."""
    k: int
    """Neighbors of precision, recall, density and coverage."""
    n_bootstrap: int
    """Resamples behind intervals; 0: none."""
    numerics: int = NUMERICS

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON."""
        told = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(told.encode()).hexdigest()


def check_same(protocols: Iterable[tuple[str, Protocol]]) -> None:
    """Raises: ConfigError naming what differs between the first of them and another."""
    (first, one), *others = protocols
    for name, other in others:
        mine, theirs = one.model_dump(mode="json"), other.model_dump(mode="json")
        differing = [key for key in mine if mine[key] != theirs[key]]
        if differing:
            raise ConfigError(
                "numbers of different protocols are not shown side by side",
                got="; ".join(f"{key}: {mine[key]} of {first}, {theirs[key]} of {name}" for key in differing),
                expected="one network, one reference, and equally many pictures",
                fix="rcg evaluate -n N takes the first N of each"
                if differing == ["n"]
                else "measure both anew together",
            )
