"""Intervals of shares."""

import math


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95% interval of a share of n; the share itself when n is not known.

    Treats pictures as independent draws, which nearest neighbors are not quite: a little too narrow.
    """
    if n <= 0:
        return share, share
    share = min(1.0, max(0.0, share))
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)
