"""Measure the samples against held-out images, in features of a network that conditioned nothing; write the report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from components.base import Metrics
from components.cache.reader import CacheSplit, open_cache
from components.cache.samples import Samples
from components.collection.images import ImageIndex, open_images
from components.encoders.base import load_encoder
from components.images.pictures import to_float
from components.metrics import looks, measure
from components.metrics.config import Task
from components.metrics.controls import resized_down
from components.metrics.features import FeatureNet, extract
from components.metrics.fitting import RealImages, fit_network, pixel_vectors
from components.metrics.measure import Vectors
from components.metrics.memorization import Memorization, memorization
from components.metrics.sight import Halves, See, Sight, halves, look, warn_if_blind
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
from flows.stages.evaluate import page
from flows.stages.evaluate.captions import asked, measure_captions
from flows.stages.evaluate.params import EvaluateParams

_N_NEIGHBORS = 3  # training neighbors shown below a random sample


@dataclass(frozen=True)
class _Findings:
    """Everything that was measured, before it is written."""

    task: Task
    curve: list[dict[str, float]]
    metrics: Metrics
    copies: Memorization
    copies_in_pixels: Memorization
    drawn_classes: np.ndarray
    z: Vectors | None
    sight: Sight


class _Evaluation:
    """One evaluation; everything happens on rank 0, whose one network makes the numbers independent of world size."""

    def __init__(self, params: EvaluateParams, inputs: Inputs, worker: Worker) -> None:
        self.params, self.inputs, self.worker = params, inputs, worker
        index = open_images(inputs["collect"], inputs.source, base_only=False, threads=worker.threads)
        held_out = index.split(params.split)
        params.features.check_size(len(held_out))
        self.index = index
        self.classes: list[str] | None = list(index.classes) if index.classes else None
        self.task = params.features.resolve(self.classes)
        self.samples = Samples(inputs["sample"])
        self.train = RealImages(index.split("train"), self.samples.info.px)
        self.held_out = RealImages(held_out, self.samples.info.px)

    def find(self) -> _Findings:
        params = self.params
        n_classes = len(self.classes or ())
        net, curve = fit_network(
            params.features, self.task, self.train, n_classes, params.train, self.worker, seed=params.seed
        )
        sets = (self.train.batches(params.batch_size), self.held_out.batches(params.batch_size), self.samples.batches())
        (train, _), (held_out, p_held_out), (generated, p_generated) = (extract(net, batches) for batches in sets)
        x = Vectors(train, held_out, generated)
        metrics = measure.quality(x, k=params.k_neighbors, n_bootstrap=params.n_bootstrap, seed=params.seed)
        if self.task == "labels" and self.held_out.labels is not None:
            measure.warn_of_chance(p_held_out, self.held_out.labels)
            metrics |= measure.class_metrics(p_generated, p_held_out, self.held_out.labels)
            metrics |= self._agreement(p_generated)
        copies = memorization(
            generated, held_out, [train], percentile=params.percentile, k=min(_N_NEIGHBORS, len(train))
        )
        in_pixels = self._pixel_copies(net)
        metrics |= measure.memorization_metrics(copies, in_pixels)
        captions = asked(self.samples, self.inputs)
        if captions is not None:
            see = partial(self._see, net)
            metrics |= measure_captions(captions, generated, self.index, train, see, seed=params.seed)
        z = self._representations()
        if z is not None:
            metrics |= measure.representation_metrics(z) | self._follows(z.generated)
        sight, controls = self._sight(net, generated)
        metrics |= controls
        metrics |= {"n_generated": len(generated), "n_held_out": len(held_out), "n_train": len(train)}
        return _Findings(self.task, curve, metrics, copies, in_pixels, p_generated.argmax(axis=1), z, sight)

    def _see(self, net: FeatureNet, split: ImageIndex, rows: np.ndarray) -> np.ndarray:
        """Features of some pictures of a split."""
        px, size = self.samples.info.px, self.params.batch_size
        return extract(net, (split.load(rows[i : i + size], px) for i in range(0, len(rows), size)))[0]

    def _sight(self, net: FeatureNet, generated: np.ndarray) -> tuple[Sight, Metrics]:
        """Whether the network can see, and where the samples stand between its controls."""
        params = self.params

        def see(images: np.ndarray) -> np.ndarray:
            return extract(net, (images[rows] for rows in _blocks(len(images), params.batch_size)))[0]

        split = halves(self.held_out.load, len(self.held_out), see, seed=params.seed)
        sight = look(split, see, k=params.k_neighbors, seed=params.seed)
        warn_if_blind(sight.reasons)
        distance = split.fd(generated)
        return sight, sight.metrics() | {"control_fd_generated": distance} | self._looks(split, see, distance)

    def _looks(self, split: Halves, see: See, distance: float) -> Metrics:
        """What the eye would say: of blocks, and to which size real pictures would have to be shrunk."""
        info, half = self.samples.info, split.images[: split.n]
        own = looks.own_period(info.pixels)
        drawn = self.samples.images(np.arange(min(len(split.images), info.n)))
        period, blocks, real = looks.worst_blockiness(drawn, split.images, (*looks.PERIODS, own or 0))
        sizes = looks.sizes_px(min(info.px, self.params.features.px))
        distances = [split.fd(see(resized_down(half, size))) for size in sizes]
        return {
            "blockiness": blocks,
            "blockiness_real": real,
            "blockiness_period": float(period),
            "equivalent_px": looks.equivalent_px(distance, sizes, distances),
            "equivalent_px_real": float(sizes[0]),
        }

    def _agreement(self, probabilities: np.ndarray) -> Metrics:
        """Share of class-conditional samples that the label network takes for the class they were asked for."""
        asked = self.samples.labels()
        return {} if asked is None else {"class_agreement": float((probabilities.argmax(axis=1) == asked).mean())}

    def _pixel_copies(self, net: FeatureNet) -> Memorization:
        px, size = net.config.px, self.params.batch_size
        generated = np.concatenate(list(pixel_vectors(self.samples.batches(), px)))
        held_out = np.concatenate(list(pixel_vectors(self.held_out.batches(size), px)))
        train = pixel_vectors(self.train.batches(4096), px)
        return memorization(generated, held_out, train, percentile=self.params.percentile)

    def _representations(self) -> Vectors | None:
        """Of the training images, the held-out images and the samples; None when the generator used none."""
        drawn = self.samples.representations()
        if drawn is None:
            return None
        cache = open_cache(self.inputs["encode"])
        columns: Sequence[str] = ("representation",)
        train, held_out = cache.training(columns), cache.held_out(self.params.split, columns)
        return Vectors(_all_representations(train), _all_representations(held_out), drawn)

    def _follows(self, asked: np.ndarray) -> Metrics:
        """Whether the encoder sees in each sample what it was drawn from; samples it has no answer for are left out."""
        encoder = load_encoder(self.inputs["encoder"]).to(self.worker.device)
        batches = (to_float(images).to(self.worker.device) for images in self.samples.batches())
        seen = torch.cat([encoder(images).cpu() for images in batches]).numpy()
        known = np.isfinite(seen).all(axis=1)
        return measure.condition_metrics(asked[known], seen[known]) if known.sum() > 1 else {}


def _all_representations(split: CacheSplit) -> np.ndarray:
    return np.concatenate([split.rows(rows)["representation"].numpy() for rows in _blocks(len(split))])


def _blocks(n: int, size: int = 4096) -> Iterator[np.ndarray]:
    return (np.arange(start, min(n, start + size)) for start in range(0, n, size))


def run(params: EvaluateParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Writes report.html, plots/*.json and pictures/*.png; the metrics are the executor's to write."""
    if worker.rank:
        return {}
    evaluation = _Evaluation(params, inputs, worker.alone())
    found = evaluation.find()
    shown = page.pictures(
        evaluation.samples.images, evaluation.held_out.load, evaluation.train.load,
        sizes=(len(evaluation.samples), len(evaluation.held_out)), copies=found.copies, seed=params.seed,
    )  # fmt: skip
    for name in ("real", "closest", "neighbors"):
        out.write_bytes(f"pictures/{name}.png", getattr(shown, name))
    plots = list(_plots(evaluation, found))
    for plot in plots:
        out.write_json(f"plots/{plot.name}.json", plot.records)
    info = evaluation.samples.info
    parents = {stage: inputs[stage].digest for stage in ("sample", "encode", "encoder", "collect")} | info.parents
    told = page.page(
        info, params, metrics=found.metrics, task=found.task, blind=found.sight.reasons, shown=shown, plots=plots,
        parents=parents,
    )  # fmt: skip
    out.write_bytes("report.html", told.encode())
    return found.metrics


def _plots(evaluation: _Evaluation, found: _Findings) -> Iterator[page.Plot]:
    labels = evaluation.held_out.labels
    yield page.control_plot(found.metrics)
    if found.task == "labels" and evaluation.classes and labels is not None:
        yield page.class_plot(found.drawn_classes, labels, evaluation.classes)
    yield page.distance_plot("feature", found.copies, "distance of features")
    yield page.distance_plot("pixel", found.copies_in_pixels, "difference of pixels")
    if found.z is not None:
        yield page.representation_plot(found.z, evaluation.params.seed)
    yield page.curve_plot(found.curve, found.task, found.metrics.get("network_accuracy"))
