"""May the judge be believed, and what would the eye say? Asked of a part of the reference, for any sets of pictures.

The stage `evaluate` asks it of all held-out pictures. Here the part grows with the sets, so that it costs about as much
again as the judging itself where pictures are few, and a fifth of it where they are many.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from components.base import Metrics
from components.metrics.judge import Judge
from components.metrics.looks import PERIODS, equivalent_px, sizes_px, worst_blockiness
from components.metrics.sight import Halves, Sight, halves, look
from components.spacing import evenly_spaced
from flows.evaluation.sets import PictureSet

if TYPE_CHECKING:
    from components.metrics.measured import Measured
    from components.metrics.networks.base import FeatureNetwork

_FEWEST, _MOST, _SHARE = 32, 500, 32
"""Pictures in each half: a thirty-second of a set, within these bounds."""
_PER_AXIS, _MOST_AXES = 4, 64
"""Pictures of both halves for each principal axis in which they are compared, and most axes."""
_SMALLEST_PX = 8
_BATCH = 64


@dataclass(frozen=True)
class Eye:
    """Two halves of a part of the reference, what the judge makes of its controls, and of pictures at smaller sizes."""

    split: Halves
    sight: Sight
    judge: Judge
    """The network in a few axes of the reference."""
    sizes: list[int]
    distances: list[float]

    def of(self, shown: np.ndarray, features: np.ndarray) -> Metrics:
        """Of a set: blockiness of its first pictures, distance and sharpness by its features (n, d)."""
        rows = features[evenly_spaced(len(features), self.split.n)]
        distance = self.split.fd(self.judge.placed(rows))
        _, blocks, of_real = worst_blockiness(shown, self.split.images, PERIODS)
        return {
            "blockiness_ratio": blocks / of_real,
            "equivalent_px": equivalent_px(distance, self.sizes, self.distances),
            "control_fd": distance,
        }


def open_eye(
    reference: PictureSet, real: "Measured", network: "FeatureNetwork", *, n: int, k: int, seed: int
) -> Eye | None:
    """For sets of n pictures; None where the reference has too few pictures, or too small ones, to spoil them."""
    half = min(max(_FEWEST, min(_MOST, n // _SHARE)), reference.n // 2)
    if half <= k:
        return None
    images = _some(reference, evenly_spaced(reference.n, 2 * half))
    side = min(images.shape[1:3])
    if side < _SMALLEST_PX:
        return None
    axes = real.pooled.axes(max(2, min(_MOST_AXES, 2 * half // _PER_AXIS, len(real.pooled.mean))))
    judge = Judge(network, None, mean=real.pooled.mean, axes=axes)
    see, sizes = partial(judge.features, batch_size=_BATCH), sizes_px(side)
    split = halves(lambda rows: images[rows], len(images), see, seed=seed)
    return Eye(split, look(split, see, k=k, seed=seed), judge, sizes, split.shrunk(see, sizes))


def _some(pictures: PictureSet, rows: np.ndarray) -> np.ndarray:
    """Pictures of these rows, which rise."""
    kept, start = [], 0
    for images in pictures.batches(_BATCH):
        here = rows[(rows >= start) & (rows < start + len(images))] - start
        kept.append(images[here])
        start += len(images)
    return np.concatenate(kept)
