"""The judge of an evaluation: a network that is trained here or comes from a file, and the axes in which it is read.

A ready-made network has more features than a covariance over a few hundred pictures bears. It is read in the leading
principal axes of the training pictures, which are fixed before any generated picture is seen.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from components.errors import ConfigError
from components.metrics.advice import check_width
from components.metrics.config import Features, ReadyFeatures, Task
from components.metrics.distances import chunks
from components.metrics.fitting import Pictures, RealImages, fit_network
from components.metrics.frechet import principal_axes
from components.metrics.mapped import MappedRows
from components.metrics.networks.base import FeatureNetwork, extract
from components.metrics.networks.trained import TrainedFeatures
from components.spacing import evenly_spaced
from components.training.config import TrainConfig
from components.training.distributed import gather_objects, made_by_first
from components.training.worker import Worker

Seen = tuple[np.ndarray, np.ndarray | None]
"""Features (n, k) and, where there are any, probabilities (n, n_classes)."""
_FOR_AXES = 10_000
"""Training pictures in which axes are looked for: enough for a covariance of 2,048 features."""


@dataclass(frozen=True)
class Judge:
    """A frozen network. Shapes: mean (d,), axes (d, k); None where features are taken as they are."""

    network: FeatureNetwork
    task: Task | None
    """What it learned here; None: it comes from a file."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Of its training."""
    mean: np.ndarray | None = None
    axes: np.ndarray | None = None

    def see(self, batches: Iterable[np.ndarray]) -> Seen:
        """Features and, of a network that learned labels here, their probabilities.

        Shapes: batches (b_i, h, w, 3) uint8 -> (n, k), float32 as the network has them or float64 in its axes;
        (n, n_classes) float64. Raises: DataError.
        """
        if self.mean is None or self.axes is None:
            features, probabilities = extract(self.network, batches)
            return features, probabilities if self.task == "labels" else None
        return np.concatenate([self.placed(extract(self.network, [images])[0]) for images in batches]), None

    def placed(self, features: np.ndarray) -> np.ndarray:
        """The network's features (n, d) in the judge's axes (n, k), or as they are where it has none."""
        return features if self.mean is None or self.axes is None else (features - self.mean) @ self.axes

    def features(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Shapes: (n, h, w, 3) uint8 -> (n, k). Raises: DataError."""
        return self.see(images[start : start + batch_size] for start in range(0, len(images), batch_size))[0]


def by_all(see: Callable[[Iterable[np.ndarray]], Seen], pictures: Pictures, worker: Worker, name: str) -> Seen:
    """What see() makes of pictures, on rank 0, in files of its scratch folder; no rows on other ranks. Collective.

    Ranks see whole batches in turn, so that no bit depends on how many ranks there are, and hand each on at once, so
    that no memory grows with the pictures. Raises: RetryableError between two batches, when told to stop; DataError.
    """
    features, probabilities = (MappedRows(pictures.n, worker.scratch / f"{name}-{what}.npy") for what in ("x", "p"))
    named = False
    for first in worker.parts(range(0, pictures.n_batches, worker.world_size)):
        mine = first + worker.rank
        seen = see([pictures.batch(mine)]) if mine < pictures.n_batches else None
        for part in gather_objects(worker, seen):
            if part is None or worker.rank:
                continue
            features.add(part[0])
            if part[1] is not None:
                named = True
                probabilities.add(part[1])
    if worker.rank:
        return np.empty((0, 0)), None
    return features.all(), probabilities.all() if named else None


def find_judge(
    config: Features,
    images: RealImages,
    classes: list[str] | None,
    how: TrainConfig | None,
    worker: Worker,
    *,
    batch_size: int,
    n_held_out: int,
    seed: int,
) -> tuple[Judge, np.ndarray]:
    """The judge, on every rank, and its features (n, k) of the training images, as by_all() gives them. Collective.

    Rank 0 alone trains a network, so that it does not depend on how many ranks there are, while the others wait.
    Raises: ConfigError for more features than n_held_out pictures bear, WeightsError, DataError.
    """
    config.check_size(n_held_out)
    if isinstance(config, ReadyFeatures):
        return _ready(config, images, worker, batch_size=batch_size, n_held_out=n_held_out)
    task = config.resolve(classes)
    if how is None:
        raise ConfigError("the feature network is trained, but evaluate.train is null", fix="presets/ show the section")
    net, curve = made_by_first(
        worker, lambda: fit_network(config, task, images, len(classes or ()), how, worker.alone(), seed=seed)
    )
    judge = Judge(TrainedFeatures(net, task).to(worker.device), task, curve)
    return judge, by_all(judge.see, images.in_batches(batch_size), worker, "train")[0]


def _ready(
    config: ReadyFeatures, images: RealImages, worker: Worker, *, batch_size: int, n_held_out: int
) -> tuple[Judge, np.ndarray]:
    network = config.network.load().to(worker.device)
    chosen = evenly_spaced(len(images), _FOR_AXES if config.dim is not None else len(images))
    raw, _ = by_all(partial(extract, network), images.in_batches(batch_size, chosen), worker, "chosen")
    if config.dim is None:
        check_width(made_by_first(worker, lambda: raw.shape[1]), n_held_out)
        return Judge(network, None), raw
    mean, axes = made_by_first(worker, partial(_axes, raw, config.dim))
    judge = Judge(network, None, mean=mean, axes=axes)
    if len(chosen) < len(images):
        return judge, by_all(judge.see, images.in_batches(batch_size), worker, "train")[0]
    return judge, np.concatenate([judge.placed(block) for block in chunks(raw)]) if len(raw) else raw


def _axes(raw: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    most = min(raw.shape[1], len(raw) - 1)
    if dim > most:
        raise ConfigError(
            "the judge has fewer axes than it is to be read in",
            got=f"{raw.shape[1]} features of {len(raw)} training pictures",
            expected=f"at least evaluate.features.dim: {dim}",
            fix=f"set evaluate.features.dim: {most}",
        )
    return principal_axes(raw, dim)
