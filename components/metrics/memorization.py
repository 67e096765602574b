"""Are the generated images copies of training images? Nearest training neighbors, measured against held-out images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from components.metrics.distances import chunks, nearest

SMALLEST = 1e-12  # keeps ratios finite when the floor is zero


@dataclass(frozen=True)
class Memorization:
    """Distances to the nearest training image, of generated images and of held-out ones (the floor)."""

    distance: np.ndarray
    """(n_generated,) distance of each generated image to its nearest training image."""
    neighbor: np.ndarray
    """(n_generated, k) indices of the nearest training images, nearest first."""
    floor: np.ndarray
    """(n_held_out,) distance of each held-out image to its nearest training image."""
    percentile: float
    """Percentile of the floor below which a generated image counts as suspiciously close."""

    @property
    def threshold(self) -> float:
        return float(np.percentile(self.floor, self.percentile))

    @property
    def share(self) -> float:
        """Share of generated images below the threshold; percentile / 100 is what new real images would show."""
        return float((self.distance < self.threshold).mean())

    @property
    def ratio(self) -> float:
        """Median distance over the floor's median: below 1, samples lie closer to the training set than real images."""
        return float(np.median(self.distance)) / max(float(np.median(self.floor)), SMALLEST)

    def closest(self, n: int) -> np.ndarray:
        """Indices of the n generated images that are nearest to a training image, nearest first."""
        return np.argsort(self.distance, kind="stable")[:n]

    def histogram(self, n_bins: int) -> tuple[list[float], list[float], list[float]]:
        """(n_bins + 1 edges, shares of generated, shares of held-out images); the last bin holds all beyond it."""
        far = float(np.quantile(np.concatenate([self.distance, self.floor]), 0.995)) or 1.0
        edges = np.linspace(0.0, far, n_bins + 1)
        both = (np.histogram(d.clip(max=edges[-1]), edges)[0] / len(d) for d in (self.distance, self.floor))
        generated, held_out = (shares.tolist() for shares in both)
        return edges.tolist(), generated, held_out


def memorization(
    generated: np.ndarray, held_out: np.ndarray, train: np.ndarray, *, percentile: float, k: int = 1
) -> Memorization:
    """Shapes: (n, d), (m, d), (l, d), any of which may lie in a mapped file."""
    distance, neighbor = nearest(generated, chunks(train), k=k)
    floor, _ = nearest(held_out, chunks(train))
    return Memorization(distance[:, 0], neighbor, floor[:, 0], percentile)


def memorized(
    vectors: np.ndarray, n: int, train: Iterable[np.ndarray], *, percentile: float, k: int = 1
) -> Memorization:
    """memorization() of n generated vectors and, after them, the held-out ones; training ones come once, in blocks."""
    distance, neighbor = nearest(vectors, train, k=k)
    return Memorization(distance[:n, 0], neighbor[:n], distance[n:, 0], percentile)
