"""Rows that stand for all of a collection."""

import numpy as np


def evenly_spaced(n: int, most: int) -> np.ndarray:
    """Indices of min(n, most) of n rows, the first and the last among them; int64, increasing."""
    return np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)
