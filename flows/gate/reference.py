"""What both models are measured against: one collection's held-out images, in features of one network fitted on it."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.base import Metrics
from components.collection.images import ImageIndex, open_images
from components.errors import ConfigError
from components.metrics import measure
from components.metrics.comparison import compare
from components.metrics.features import FeatureNet, extract
from components.metrics.fitting import RealImages, fit_network, pixel_vectors
from components.metrics.frechet import frechet
from components.metrics.memorization import memorization
from components.metrics.prdc import precision_recall
from components.metrics.sight import halves, look
from components.training.worker import Worker
from flows.gate.decisions import Interval
from flows.identity.artifact import InputArtifact
from flows.pipeline.policy import GateParams
from flows.stages.evaluate.params import EvaluateParams


@dataclass(frozen=True)
class Drawn:
    """One model's images as vectors. Shapes: (n, d), (n, d')."""

    features: np.ndarray
    pixels: np.ndarray


class Reference:
    """The challenger's collection. `champion`: the one that the champion was trained on, None if there is none."""

    def __init__(
        self,
        params: EvaluateParams,
        collect: InputArtifact,
        champion: InputArtifact | None,
        source: str,
        worker: Worker,
        px: int,
    ) -> None:
        self.params = params
        index = open_images(collect, source, base_only=False, threads=worker.threads)
        test = index.split("test")
        self.seen, self.known = _history(test, champion, source, worker)
        params.features.check_size(int((~self.seen).sum()))
        classes = list(index.classes) if index.classes else None
        self.task = params.features.resolve(classes)
        train, self.held_out = RealImages(index.split("train"), px), RealImages(test, px)
        how = params.train
        self.net, _ = fit_network(params.features, self.task, train, len(classes or ()), how, worker, seed=params.seed)
        self.real, probabilities = self._seen(self.held_out)
        self.train, _ = self._seen(train)
        split = halves(self.held_out.load, len(self.held_out), self._features, seed=params.seed)
        self.sight = look(split, self._features, k=params.k_neighbors, seed=params.seed)
        if self.task == "labels" and self.held_out.labels is not None:
            measure.warn_of_chance(probabilities, self.held_out.labels)
        self.protocol: dict[str, Any] = {
            "collection": collect.digest,
            "split": "test",
            "task": self.task,
            **params.model_dump(mode="json", include={"features", "train", "seed", "k_neighbors", "percentile"}),
            "network": _digest(self.net),
            "controls": self.sight.metrics(),
            "n_held_out": len(self.held_out),
            "n_seen_by_champion": int(self.seen.sum()),
            "n_known": None if self.known is None else int(self.known.sum()),
        }

    def _seen(self, images: RealImages) -> tuple[Drawn, np.ndarray]:
        """Real images, and the network's class probabilities of them."""
        size = self.params.batch_size
        features, probabilities = extract(self.net, images.batches(size))
        pixels = np.concatenate(list(pixel_vectors(images.batches(size), self.net.config.px)))
        return Drawn(features, pixels), probabilities

    def see(self, images: np.ndarray) -> Drawn:
        """Shapes: (n, px, px, 3) uint8."""
        pixels = list(pixel_vectors(self._blocks(images), self.net.config.px))
        return Drawn(self._features(images), np.concatenate(pixels))

    def _features(self, images: np.ndarray) -> np.ndarray:
        return extract(self.net, self._blocks(images))[0]

    def _blocks(self, images: np.ndarray) -> list[np.ndarray]:
        size = self.params.batch_size
        return [images[start : start + size] for start in range(0, len(images), size)]

    def metrics(self, drawn: Drawn) -> Metrics:
        """Distances, precision, recall and memorization of one model."""
        precision, recall = precision_recall(self.real.features, drawn.features, k=self.params.k_neighbors)
        percentile = self.params.percentile
        copies = [
            memorization(mine, real, [train], percentile=percentile).share
            for mine, real, train in (
                (drawn.features, self.real.features, self.train.features),
                (drawn.pixels, self.real.pixels, self.train.pixels),
            )
        ]
        found = {
            "fd": frechet(drawn.features, self.real.features[~self.seen]),
            "precision": precision,
            "recall": recall,
            "memorization_share": copies[0],
            "memorization_share_pixels": copies[1],
            "precision_blind": float(self.sight.precision_blind),
        }
        if self.known is not None and self.is_enough(self.known):
            found["fd_known"] = frechet(drawn.features, self.real.features[self.known])
        return found

    def floors(self, n: int) -> Metrics:
        """What as many training images would score: nothing sensible is much better."""
        x = measure.Vectors(self.train.features, self.real.features, self.train.features[:n])
        k = min(self.params.k_neighbors, len(x.generated) - 1)
        precision, recall = precision_recall(x.held_out, x.generated, k=k)
        return {"fd": frechet(x.generated, x.held_out), "precision": precision, "recall": recall}

    def is_enough(self, chosen: np.ndarray) -> bool:
        """Whether a covariance over the chosen held-out images means anything."""
        try:
            self.params.features.check_size(int(chosen.sum()))
        except ConfigError:
            return False
        return True

    def differences(self, champion: Drawn, challenger: Drawn, gate: GateParams) -> dict[str, Interval]:
        """How much worse the challenger is, on `all` held-out images and on those `known` to the champion."""
        found = {"all": self._difference(champion, challenger, ~self.seen, gate, gate.margin)}
        if gate.margin_known is not None and self.known is not None and self.is_enough(self.known):
            found["known"] = self._difference(champion, challenger, self.known, gate, gate.margin_known)
        return found

    def _difference(
        self, champion: Drawn, challenger: Drawn, chosen: np.ndarray, gate: GateParams, margin: float
    ) -> Interval:
        real = self.real.features[chosen]
        d = compare(
            champion.features, challenger.features, real, n_draws=gate.n_bootstrap, level=gate.level, seed=gate.seed
        )
        return Interval(value=d.value, low=d.low, high=d.high, limit=margin * d.first, n_real=len(real))


def _digest(net: FeatureNet) -> str:
    from safetensors.torch import save

    return hashlib.sha256(save({k: v.cpu().contiguous() for k, v in sorted(net.state_dict().items())})).hexdigest()


def _history(
    test: ImageIndex, champion: InputArtifact | None, source: str, worker: Worker
) -> tuple[np.ndarray, np.ndarray | None]:
    """Which held-out images the champion was trained on (left out of comparisons), and which it held out too."""
    if champion is None:
        return np.zeros(len(test), bool), None
    before = open_images(champion, source, base_only=False, threads=worker.threads)
    train, held_out = (set(before.split(name).sha256) for name in ("train", "test"))
    return (
        np.array([sha256 in train for sha256 in test.sha256], bool),
        np.array([sha256 in held_out for sha256 in test.sha256], bool),
    )
