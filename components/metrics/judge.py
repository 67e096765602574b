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
from components.metrics.fitting import RealImages, fit_network
from components.metrics.frechet import principal_axes
from components.metrics.networks.base import FeatureNetwork, extract
from components.metrics.networks.trained import TrainedFeatures
from components.spacing import evenly_spaced
from components.training.config import TrainConfig
from components.training.distributed import gather_objects
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

        Shapes: batches (b_i, h, w, 3) uint8 -> (n, k), (n, n_classes), both float64. Raises: DataError.
        """
        if self.mean is None or self.axes is None:
            features, probabilities = extract(self.network, batches)
            return features, probabilities if self.task == "labels" else None
        seen = [(extract(self.network, [images])[0] - self.mean) @ self.axes for images in batches]
        return np.concatenate(seen), None

    def features(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Shapes: (n, h, w, 3) uint8 -> (n, k) float64. Raises: DataError."""
        return self.see(images[start : start + batch_size] for start in range(0, len(images), batch_size))[0]


def by_all(
    see: Callable[[Iterable[np.ndarray]], Seen], n_batches: int, batch: Callable[[int], np.ndarray], worker: Worker
) -> Seen:
    """What see() makes of batch(0) … batch(n_batches - 1), on every rank. Collective.

    Each rank sees whole batches of its own, so that no bit depends on how many ranks there are. Raises: RetryableError
    between two batches, when told to stop; DataError.
    """
    mine = range(n_batches)[worker.rows(n_batches)]
    seen = see(map(batch, worker.parts(mine))) if mine else None
    parts = [part for part in gather_objects(worker, seen) if part is not None]
    probabilities = [part for _, part in parts if part is not None]
    return np.concatenate([part for part, _ in parts]), np.concatenate(probabilities) if probabilities else None


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
    """The judge and its features (n, k) of the training images, on every rank.

    Collective where the network comes from a file; one that is trained wants a worker that is alone.
    Raises: ConfigError for more features than n_held_out pictures bear, WeightsError, DataError.
    """
    config.check_size(n_held_out)
    if isinstance(config, ReadyFeatures):
        return _ready(config, images, worker, batch_size=batch_size, n_held_out=n_held_out)
    task = config.resolve(classes)
    if how is None:
        raise ConfigError("the feature network is trained, but evaluate.train is null", fix="presets/ show the section")
    net, curve = fit_network(config, task, images, len(classes or ()), how, worker, seed=seed)
    judge = Judge(TrainedFeatures(net, task), task, curve)
    return judge, judge.see(images.batches(batch_size))[0]


def _ready(
    config: ReadyFeatures, images: RealImages, worker: Worker, *, batch_size: int, n_held_out: int
) -> tuple[Judge, np.ndarray]:
    network = config.network.load().to(worker.device)
    chosen = evenly_spaced(len(images), _FOR_AXES if config.dim is not None else len(images))
    raw, _ = by_all(
        partial(extract, network),
        -(-len(chosen) // batch_size),
        lambda i: images.load(chosen[i * batch_size : (i + 1) * batch_size]),
        worker,
    )
    if config.dim is None:
        check_width(raw.shape[1], n_held_out)
        return Judge(network, None), raw
    most = min(raw.shape[1], len(raw) - 1)
    if config.dim > most:
        raise ConfigError(
            "the judge has fewer axes than it is to be read in",
            got=f"{raw.shape[1]} features of {len(raw)} training pictures",
            expected=f"at least evaluate.features.dim: {config.dim}",
            fix=f"set evaluate.features.dim: {most}",
        )
    mean, axes = principal_axes(raw, config.dim)
    judge = Judge(network, None, mean=mean, axes=axes)
    if len(chosen) == len(images):
        return judge, (raw - mean) @ axes
    seen = by_all(judge.see, images.n_batches(batch_size), partial(images.batch, size=batch_size), worker)
    return judge, seen[0]
