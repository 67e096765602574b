"""What a running component tells of an interval. Apart from worker.py, which imports torch: drivers read it too."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Report:
    """One interval's news from rank 0: step metrics and pictures (h, w, 3) uint8."""

    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    total_steps: int | None = None
