"""What a network makes of a whole set of images: features on disk, moments and the inception score, in flat memory."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import DataError
from components.metrics.gaussian import Gaussian, Moments
from components.metrics.inception_score import inception_score
from components.metrics.networks.base import FeatureNetwork, check_finite
from components.metrics.protocol import INCEPTION_CHUNK

FEATURES, STATISTICS = "features.npy", "statistics.npz"
_BLOCK = 1024
"""Rows whose moments are taken at once: adding up costs as much for one row as for many."""


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
    pooled, spatial, scores = _Sum(), _Sum(), list[float]()
    sums = _Blocks(_BLOCK, pooled.take), _Blocks(_BLOCK, spatial.take)
    parts = _Blocks(INCEPTION_CHUNK, lambda p: scores.append(inception_score(p)))
    done = 0
    with (folder / FEATURES).open("wb") as file:
        for images in batches:
            seen = network(images)
            check_finite(seen.features, network.identity.kind)
            if not done:
                header = {"descr": "<f4", "fortran_order": False, "shape": (n, seen.features.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(seen.features, "<f4").tobytes())
            for blocks, rows in zip((*sums, parts), (seen.features, seen.spatial, seen.probabilities), strict=True):
                if rows is not None:
                    blocks.add(rows)
            done += len(images)
            on_done(done)
    if done != n or n < 2:
        raise DataError("too few pictures to compare", got=f"{done} pictures", expected=f"{max(2, n)}")
    for blocks in (*sums, parts):
        blocks.close()
    held = pooled.held("mu", "sigma") | spatial.held("mu_s", "sigma_s")
    if scores:
        held["score"] = np.float64(np.mean(scores))
    np.savez(folder / STATISTICS, **held)
    return Measured.read(folder)


class _Blocks:
    """Rows come in batches and go on in blocks of one size, the last one shorter."""

    def __init__(self, size: int, take: Callable[[np.ndarray], None]) -> None:
        self._size, self._take, self._rows, self._n = size, take, list[np.ndarray](), 0

    def add(self, rows: np.ndarray) -> None:
        self._rows.append(rows)
        self._n += len(rows)
        while self._n >= self._size:
            whole = np.concatenate(self._rows)
            self._take(whole[: self._size])
            self._rows, self._n = [whole[self._size :]], self._n - self._size

    def close(self) -> None:
        if self._n:
            self._take(np.concatenate(self._rows))


class _Sum:
    """Moments of all blocks."""

    def __init__(self) -> None:
        self._total: Moments | None = None

    def take(self, block: np.ndarray) -> None:
        here = Moments.of(block)
        self._total = here if self._total is None else self._total + here

    def held(self, mean: str, cov: str) -> dict[str, Any]:
        """By the names that a file gives them; nothing where there was no block."""
        if self._total is None:
            return {}
        fitted = self._total.gaussian()
        return {mean: fitted.mean, cov: fitted.cov}
