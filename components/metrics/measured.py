"""What a network makes of a whole set of images: features on disk, moments and the inception score, in flat memory."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import DataError
from components.metrics.frechet import Gaussian
from components.metrics.inception_score import inception_score
from components.metrics.moments import Moments
from components.metrics.networks.base import FeatureNetwork
from components.metrics.protocol import INCEPTION_CHUNK

FEATURES, STATISTICS = "features.npy", "statistics.npz"


@dataclass(frozen=True)
class Measured:
    """A set as a network sees it."""

    features: np.ndarray | None
    """(n, d) float32, in a file that is mapped; None where only statistics are known."""
    pooled: Gaussian
    """Of the features."""
    spatial: Gaussian | None
    """Of sFID's features; None where the network has none."""
    score: float | None
    """Inception score; None where the network knows no classes."""

    @property
    def n(self) -> int | None:
        return None if self.features is None else len(self.features)

    @classmethod
    def read(cls, folder: Path) -> "Measured":
        """What measure() wrote there."""
        with np.load(folder / STATISTICS, allow_pickle=False) as file:
            spatial = Gaussian(file["mu_s"], file["sigma_s"]) if "mu_s" in file else None
            score = float(file["score"]) if "score" in file else None
            pooled = Gaussian(file["mu"], file["sigma"])
        return cls(np.load(folder / FEATURES, mmap_mode="r", allow_pickle=False), pooled, spatial, score)


def measure(
    batches: Iterable[np.ndarray], n: int, network: FeatureNetwork, folder: Path, on_done: Callable[[int], None]
) -> Measured:
    """Write features.npy and statistics.npz of n images to an existing folder; `on_done` hears how many are done.

    Shapes: batches (b_i, h, w, 3) uint8, n images in all. Raises: DataError for features that are not finite.
    """
    features: np.memmap | None = None
    pooled: Moments | None = None
    spatial: Moments | None = None
    scores: list[float] = []
    waiting: list[np.ndarray] = []
    done = 0
    for images in batches:
        seen = network(images)
        if not np.isfinite(seen.features).all():
            raise DataError("the feature network's outputs are not finite", got=f"pictures {done} and later",
                            fix="check the weights file; it may be damaged or of half precision")  # fmt: skip
        if features is None:
            shape = (n, seen.features.shape[1])
            features = np.lib.format.open_memmap(folder / FEATURES, "w+", np.float32, shape)
        features[done : done + len(images)] = seen.features
        pooled = _added(pooled, seen.features)
        spatial = None if seen.spatial is None else _added(spatial, seen.spatial)
        if seen.probabilities is not None:
            waiting.append(seen.probabilities)
            if sum(map(len, waiting)) >= INCEPTION_CHUNK:
                whole = np.concatenate(waiting)
                scores.append(inception_score(whole[:INCEPTION_CHUNK]))
                waiting = [whole[INCEPTION_CHUNK:]]
        done += len(images)
        on_done(done)
    if features is None or pooled is None or done != n or n < 2:
        raise DataError("too few pictures to compare", got=f"{done} pictures", expected=f"{max(2, n)}")
    if waiting and sum(map(len, waiting)):
        scores.append(inception_score(np.concatenate(waiting)))
    features.flush()
    fitted = pooled.gaussian()
    held: dict[str, Any] = {"mu": fitted.mean, "sigma": fitted.cov}
    if spatial is not None:
        fitted = spatial.gaussian()
        held |= {"mu_s": fitted.mean, "sigma_s": fitted.cov}
    if scores:
        held["score"] = np.float64(np.mean(scores))
    np.savez(folder / STATISTICS, **held)
    return Measured.read(folder)


def _added(so_far: Moments | None, features: np.ndarray) -> Moments:
    here = Moments.of(features)
    return here if so_far is None else so_far + here
