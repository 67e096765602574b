"""What both models are measured against: one collection's held-out images, in features of one network fitted on it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from components.base import Metrics
from components.collection.images import ImageIndex, open_images
from components.errors import ConfigError
from components.metrics import measure
from components.metrics.comparison import compare
from components.metrics.fitting import RealImages, pixel_vectors
from components.metrics.frechet import frechet
from components.metrics.judge import find_judge
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
        self.px = params.features.side(px)
        train, self.held_out = RealImages(index.split("train"), px), RealImages(test, px)
        self.judge, features = find_judge(
            params.features,
            train,
            list(index.classes) if index.classes else None,
            params.train,
            worker,
            batch_size=params.batch_size,
            n_held_out=int((~self.seen).sum()),
            seed=params.seed,
        )
        seen, probabilities = self.judge.see(self.held_out.batches(params.batch_size))
        self.real, self.train = Drawn(seen, self._pixels(self.held_out)), Drawn(features, self._pixels(train))
        split = halves(self.held_out.load, len(self.held_out), self._features, seed=params.seed)
        labels = self.held_out.labels
        unlearned = None if probabilities is None or labels is None else measure.at_chance(probabilities, labels)
        self.sight = look(split, self._features, k=params.k_neighbors, seed=params.seed, unlearned=unlearned)
        self.protocol: dict[str, Any] = {
            "collection": collect.digest,
            "split": "test",
            "task": self.judge.task,
            **params.model_dump(mode="json", include={"features", "train", "seed", "k_neighbors", "percentile"}),
            "network": asdict(self.judge.network.identity),
            "controls": self.sight.metrics(),
            "n_held_out": len(self.held_out),
            "n_seen_by_champion": int(self.seen.sum()),
            "n_known": None if self.known is None else int(self.known.sum()),
        }

    def _pixels(self, images: RealImages) -> np.ndarray:
        return np.concatenate(list(pixel_vectors(images.batches(self.params.batch_size), self.px)))

    def see(self, images: np.ndarray) -> Drawn:
        """Shapes: (n, px, px, 3) uint8."""
        size = self.params.batch_size
        blocks = (images[start : start + size] for start in range(0, len(images), size))
        return Drawn(self._features(images), np.concatenate(list(pixel_vectors(blocks, self.px))))

    def _features(self, images: np.ndarray) -> np.ndarray:
        return self.judge.features(images, self.params.batch_size)

    def metrics(self, drawn: Drawn) -> Metrics:
        """Distances, precision, recall and memorization of one model."""
        precision, recall = precision_recall(self.real.features, drawn.features, k=self.params.k_neighbors)
        percentile = self.params.percentile
        copies = [
            memorization(mine, real, train, percentile=percentile).share
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
