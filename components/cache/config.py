"""How training walks through a cache that no worker can hold. Imports without torch."""

from typing import Literal

from pydantic import Field

from components.config import Config

LARGE_BYTES = 16 * 10**9
"""A cache beyond this size lists the rows of its shards, and is then read by window unless params say otherwise."""


class Reading(Config):
    """An epoch by window: shards in random order, their rows mixed with those of their neighbors."""

    lanes: int = Field(ge=1)
    """Stretches of an epoch that a batch reads side by side, at most batch_size; as many workers at most read shards
    that no other worker reads."""
    window: int = Field(ge=1)
    """Shards that a lane mixes at any time. A worker holds its lanes' windows: lanes / workers * window shards, and
    those that come next."""


USUAL = Reading(lanes=128, window=4)
"""Of a large cache, where params say nothing."""

ReadingChoice = Reading | Literal["whole"] | None
"""What params say. whole: all rows are shuffled together, and each worker fetches every shard."""
