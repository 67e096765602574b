"""What a running component reports of an interval. Imports neither torch nor numpy: drivers read it, too."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Report:
    """One interval's news from rank 0: step metrics and pictures (h, w, 3) uint8."""

    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, "np.ndarray"] = field(default_factory=dict)
    total_steps: int | None = None
