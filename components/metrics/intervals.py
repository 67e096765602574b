"""Confidence intervals of shares."""

import math


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share of n, at 95% for the default z; (share, share) for an n of 0, i.e. not known.

    It takes the n as independent. Nearest neighbors are not quite, so that their interval is a little too narrow.
    """
    if n <= 0:
        return share, share
    share = min(1.0, max(0.0, share))
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)
