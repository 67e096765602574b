"""Training the feature network on real images, and turning images into the vectors that are compared."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from components.base import Batch
from components.errors import DataError
from components.images.pictures import to_float
from components.metrics.config import FeatureConfig, Task
from components.metrics.features import FeatureNet, LabelTask, SelfTask, fit
from components.nn.vit import seeded_init
from components.rng import BatchRng
from components.training.config import TrainConfig
from components.training.loop import train
from components.training.worker import Worker

PIXEL_PX = 32  # pixel distances need no more detail, and the vectors stay small


class ImageSplit(Protocol):
    """The part of an image index that is used here."""

    @property
    def labels(self) -> np.ndarray | None: ...
    def __len__(self) -> int: ...
    def load(self, indices: np.ndarray, px: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Pictures:
    """n pictures in so many batches; batch(i) gives one of them, (b_i, h, w, 3) uint8."""

    n: int
    n_batches: int
    batch: Callable[[int], np.ndarray]


class RealImages:
    """One split at one size, as uint8."""

    def __init__(self, split: ImageSplit, px: int) -> None:
        self._split, self.px, self.labels = split, px, split.labels

    def __len__(self) -> int:
        return len(self._split)

    def load(self, indices: np.ndarray) -> np.ndarray:
        """Shapes: (n,) -> (n, px, px, 3) uint8."""
        return self._split.load(indices, self.px)

    def in_batches(self, size: int, rows: np.ndarray | None = None) -> Pictures:
        """All images in order, or some; the last batch may hold fewer."""
        chosen = np.arange(len(self)) if rows is None else rows
        return Pictures(len(chosen), -(-len(chosen) // size), lambda i: self.load(chosen[i * size : (i + 1) * size]))

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All images in order."""
        pictures = self.in_batches(size)
        return map(pictures.batch, range(pictures.n_batches))


def fit_network(
    config: FeatureConfig,
    task: Task,
    images: RealImages,
    n_classes: int,
    how: TrainConfig,
    worker: Worker,
    *,
    seed: int,
) -> tuple[FeatureNet, list[dict[str, float]]]:
    """The trained network, in eval mode, and its training curve.

    Raises: DataError when the network shall learn labels and fewer than two training images have one.
    """
    chosen = np.arange(len(images))
    labels = images.labels
    if task == "labels":
        chosen = np.flatnonzero(labels >= 0) if labels is not None else chosen[:0]
        if len(chosen) < 2:
            raise DataError(
                "too few labeled training images for a label network",
                got=len(chosen),
                fix="set evaluate.features.task: self",
            )
    with seeded_init(seed):
        net = FeatureNet(config, n_classes if task == "labels" else 4)
        trainable = LabelTask(net) if task == "labels" else SelfTask(net)

    def fetch(indices: np.ndarray, _rng: BatchRng) -> Batch:  # the draws are made on the device
        rows = chosen[indices]
        batch = {"image": fit(to_float(images.load(rows)), config.px)}
        if task == "labels" and labels is not None:
            batch["class"] = torch.from_numpy(labels[rows].astype(np.int64))
        return batch

    result = train(trainable, fetch, len(chosen), how, worker)
    return net.cpu().eval().requires_grad_(False), result.curve


def pixel_vectors(batches: Iterable[np.ndarray], px: int) -> Iterator[np.ndarray]:
    """Images as vectors whose Euclidean distance is the root mean squared difference of pixels in [0, 1].

    Shapes: batches (b_i, h, w, 3) uint8 -> (b_i, 3 side^2) float32 with side = min(px, 32).
    """
    side = min(px, PIXEL_PX)
    for images in batches:
        flat = fit(to_float(images), side).flatten(1).numpy()
        yield flat / np.float32(np.sqrt(flat.shape[1]))
