"""How evenly the classes are drawn."""

import numpy as np


def class_counts(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Shapes: (n,) int64 -> (n_classes,) int64. Unlabeled rows (-1) are left out."""
    return np.bincount(labels[labels >= 0], minlength=n_classes)


def class_shares(labels: np.ndarray, n_classes: int) -> list[float]:
    """Shapes: (n,) int64 -> n_classes shares, all 0 where nothing is labeled."""
    counts = class_counts(labels, n_classes)
    shares: list[float] = (counts / max(1, counts.sum())).tolist()
    return shares


def entropy(counts: np.ndarray) -> float:
    """Entropy of the shares in nats: log(n_classes) when all classes are drawn alike, 0 when only one is."""
    p = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(p * np.log(p)).sum()))


def kl_divergence(real: np.ndarray, generated: np.ndarray) -> float:
    """KL(real || generated) of two class counts in nats; it grows when a real class is rarely drawn.

    Half a count is added to every class (Jeffreys prior), so a class that was never drawn costs much but not infinity.
    """
    p, q = (real + 0.5) / (real + 0.5).sum(), (generated + 0.5) / (generated + 0.5).sum()
    return float((p * np.log(p / q)).sum())
