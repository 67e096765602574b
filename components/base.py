"""What every component shares: the batch it reads, and its artifacts."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

Batch = Mapping[str, Tensor]
"""Fields by name: target, representation (b, dim), class (b,) int64, others of the cache, and masks beside them
(components/fields.py). Every tensor has the same first dimension."""

Metrics = dict[str, float]


class Reader(Protocol):
    """What components need of an artifact that they read."""

    def path(self, name: str) -> Path: ...
    def read_json(self, name: str) -> Any: ...


class Writer(Protocol):
    """What components need of an artifact that they write."""

    def file(self, name: str) -> AbstractContextManager[Path]: ...
    def write_json(self, name: str, value: Any) -> None: ...
