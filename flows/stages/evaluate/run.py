"""Measure the samples against held-out images, in features of a network that conditioned nothing; write the report."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain

import numpy as np
import torch

from components.base import Metrics
from components.cache.reader import open_cache
from components.cache.samples import Samples
from components.collection.images import ImageIndex, open_images
from components.encoders.base import FrozenEncoder, load_encoder
from components.images.pictures import to_float
from components.metrics import looks, measure
from components.metrics.advice import Advice, advise
from components.metrics.config import ReadyFeatures
from components.metrics.distances import chunks
from components.metrics.fitting import Pictures, RealImages, pixel_vectors
from components.metrics.judge import Judge, by_all, find_judge
from components.metrics.mapped import MappedRows
from components.metrics.measure import Vectors
from components.metrics.memorization import Memorization, memorization, memorized
from components.metrics.networks.base import judges_itself
from components.metrics.prdc import check_neighbors
from components.metrics.sight import Halves, See, Sight, halves, look, warn_if_blind
from components.spacing import evenly_spaced
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
from flows.stages.evaluate import page
from flows.stages.evaluate.captions import asked, measure_captions
from flows.stages.evaluate.own import Painted, own_picture, paint
from flows.stages.evaluate.params import EvaluateParams

_log = logging.getLogger(__name__)
_N_NEIGHBORS = 3  # training neighbors shown below a random sample


@dataclass(frozen=True)
class _Seen:
    """The judge, and what it sees of all pictures."""

    judge: Judge
    same: bool
    """Whether it is the encoder that conditioned the generator."""
    x: Vectors
    p_held_out: np.ndarray | None
    p_generated: np.ndarray | None
    shown: np.ndarray | None
    """Representations that the encoder sees in the samples."""


@dataclass(frozen=True)
class _Findings:
    """Everything that was measured, before it is written."""

    judge: Judge
    metrics: Metrics
    copies: Memorization
    copies_in_pixels: Memorization
    drawn_classes: np.ndarray | None
    """As the judge names them, where it learned labels."""
    z: Vectors | None
    sight: Sight
    advice: Advice
    painted: Painted | None


class _Evaluation:
    """One evaluation. Networks see the pictures on all ranks; all else, the training of a judge too, is rank 0's, so
    that numbers do not depend on how many ranks there are."""

    def __init__(self, params: EvaluateParams, inputs: Inputs, worker: Worker) -> None:
        self.params, self.inputs, self.worker = params, inputs, worker
        index = open_images(inputs["collect"], inputs.source, base_only=False, threads=worker.threads)
        held_out = index.split(params.split)
        params.features.check_size(len(held_out))
        self.index = index
        self.classes: list[str] | None = list(index.classes) if index.classes else None
        self.samples = Samples(inputs["sample"])
        check_neighbors(params.k_neighbors, len(held_out), len(self.samples))
        self.train = RealImages(index.split("train"), self.samples.info.px)
        self.held_out, self.names = RealImages(held_out, self.samples.info.px), held_out.keys

    def see(self) -> _Seen:
        """Collective; only what rank 0 gets back holds rows."""
        params = self.params
        judge, train = find_judge(
            params.features,
            self.train,
            self.classes,
            params.train,
            self.worker,
            batch_size=params.batch_size,
            n_held_out=len(self.held_out),
            seed=params.seed,
        )
        same, size = self._conditioned(judge), params.batch_size
        held_out, p_held_out = by_all(judge.see, self.held_out.in_batches(size), self.worker, "held_out")
        generated, p_generated = by_all(judge.see, self._drawn, self.worker, "generated")
        return _Seen(judge, same, Vectors(train, held_out, generated), p_held_out, p_generated, self._shown())

    @property
    def _drawn(self) -> Pictures:
        return Pictures(len(self.samples), self.samples.info.n_shards, self.samples.batch)

    def _shown(self) -> np.ndarray | None:
        """What the encoder sees in the samples; None where no representation conditioned them."""
        if self.samples.info.dim is None:
            return None

        def see(batches: Iterable[np.ndarray]) -> tuple[np.ndarray, None]:
            on_device = (to_float(images).to(self.worker.device) for images in batches)
            return torch.cat([self._encoder(images).cpu() for images in on_device]).numpy(), None

        return by_all(see, self._drawn, self.worker, "shown")[0]

    def find(self, seen: _Seen) -> _Findings:
        params, judge, x = self.params, seen.judge, seen.x
        train, held_out, generated = x.train, x.held_out, x.generated
        p_held_out, p_generated = seen.p_held_out, seen.p_generated
        metrics = measure.quality(x, k=params.k_neighbors, n_bootstrap=params.n_bootstrap, seed=params.seed)
        if p_held_out is not None and p_generated is not None and self.held_out.labels is not None:
            metrics |= measure.class_metrics(p_generated, p_held_out, self.held_out.labels)
            metrics |= self._agreement(p_generated)
        copies = memorization(generated, held_out, train, percentile=params.percentile, k=min(_N_NEIGHBORS, len(train)))
        in_pixels = self._pixel_copies()
        metrics |= measure.memorization_metrics(copies, in_pixels)
        told = asked(self.samples, self.inputs)
        if told is not None:
            see = partial(self._see, judge)
            metrics |= measure_captions(told, generated, self.index, train, see, seed=params.seed)
        z = self._representations()
        if z is not None:
            metrics |= measure.representation_metrics(z)
            metrics |= {} if seen.shown is None else _follows(z.generated, seen.shown)
        sight, controls = self._sight(judge, x, p_held_out)
        metrics |= controls | ({"judge_same": 1.0} if seen.same else {})
        metrics |= {"n_generated": len(generated), "n_held_out": len(held_out), "n_train": len(train)}
        painted = paint(params, self.inputs, self.samples, self.names, self.worker.device)
        if painted is not None:
            metrics |= own_picture(judge.features(painted.images, params.batch_size), held_out, painted.own)
        named = None if p_generated is None else p_generated.argmax(axis=1)
        advice = self._advice(len(generated), *held_out.shape, named=named is not None)
        return _Findings(judge, metrics, copies, in_pixels, named, z, sight, advice, painted)

    def _see(self, judge: Judge, split: ImageIndex, rows: np.ndarray) -> np.ndarray:
        """Features of some pictures of a split."""
        px, size = self.samples.info.px, self.params.batch_size
        return judge.see(split.load(rows[i : i + size], px) for i in range(0, len(rows), size))[0]

    def _advice(self, n: int, n_held_out: int, dim: int, *, named: bool) -> Advice:
        labels = self.held_out.labels
        n_labels = int((labels >= 0).sum()) if named and labels is not None else None
        advice = advise(n, n_held_out, dim, k=self.params.k_neighbors, n_labels=n_labels)
        for remark in advice.remarks:
            _log.warning("%s", remark)
        return advice

    def _conditioned(self, judge: Judge) -> bool:
        """Whether the judge is the encoder that conditioned the generator. Raises: ConfigError unless that is meant."""
        features = self.params.features
        if self.samples.info.dim is None or not isinstance(features, ReadyFeatures):
            return False
        fix = "set evaluate.features.allow_same: true"
        return judges_itself(judge.network, self._encoder, allowed=features.allow_same, fix=fix)

    def _sight(self, judge: Judge, x: Vectors, probabilities: np.ndarray | None) -> tuple[Sight, Metrics]:
        """Whether the network can see, and where the samples stand between its controls."""
        params, labels = self.params, self.held_out.labels
        unlearned = None if probabilities is None or labels is None else measure.at_chance(probabilities, labels)

        def see(images: np.ndarray) -> np.ndarray:
            return judge.features(images, params.batch_size)

        split = halves(self.held_out.load, len(self.held_out), see, seed=params.seed)
        sight = look(split, see, k=params.k_neighbors, seed=params.seed, unlearned=unlearned)
        warn_if_blind(sight.reasons)
        distance = split.fd(x.generated)
        trained_on = split.fd(x.train[evenly_spaced(len(x.train), split.n)])
        looks = self._looks(split, see, {"": distance, "_real": trained_on})
        return sight, sight.metrics() | {"control_fd_generated": distance} | looks

    def _looks(self, split: Halves, see: See, found: Mapping[str, float]) -> Metrics:
        """What the eye would say: of blocks, and to which size real pictures would have to be shrunk.

        `found`: distances of the samples and of training pictures, which no generator has to beat.
        """
        info = self.samples.info
        own = looks.own_period(info.pixels)
        drawn = self.samples.images(np.arange(min(len(split.images), info.n)))
        period, blocks, real = looks.worst_blockiness(drawn, split.images, (*looks.PERIODS, own or 0))
        sizes = looks.sizes_px(min(info.px, self.params.features.side(info.px)))
        distances = split.shrunk(see, sizes)
        return {
            "blockiness": blocks,
            "blockiness_real": real,
            "blockiness_period": float(period),
            **{f"equivalent_px{end}": looks.equivalent_px(far, sizes, distances) for end, far in found.items()},
        }

    def _agreement(self, probabilities: np.ndarray) -> Metrics:
        """Share of class-conditional samples that the label network takes for the class they were asked for."""
        asked = self.samples.labels()
        return {} if asked is None else {"class_agreement": float((probabilities.argmax(axis=1) == asked).mean())}

    def _pixel_copies(self) -> Memorization:
        px, size = self.params.features.side(self.samples.info.px), self.params.batch_size
        vectors = MappedRows(len(self.samples) + len(self.held_out), self.worker.scratch / "pixels.npy")
        for block in pixel_vectors(chain(self.samples.batches(), self.held_out.batches(size)), px):
            vectors.add(block)
        train = pixel_vectors(self.train.batches(4096), px)
        return memorized(vectors.all(), len(self.samples), train, percentile=self.params.percentile)

    def _representations(self) -> Vectors | None:
        """Of the training images, the held-out images and the samples; None when the generator used none."""
        drawn = self.samples.representations()
        if drawn is None:
            return None
        cache = open_cache(self.inputs["encode"])
        columns: Sequence[str] = ("representation",)
        train, held_out = cache.training(columns), cache.held_out(self.params.split, columns)
        known = MappedRows(len(train), self.worker.scratch / "representations.npy")
        for rows in chunks(np.arange(len(train))):
            known.add(train.rows(rows)["representation"].numpy())
        return Vectors(known.all(), held_out.rows(np.arange(len(held_out)))["representation"].numpy(), drawn)

    @cached_property
    def _encoder(self) -> FrozenEncoder:
        return load_encoder(self.inputs["encoder"]).to(self.worker.device)


def _follows(asked: np.ndarray, seen: np.ndarray) -> Metrics:
    """Whether the encoder sees in each sample what it was drawn from; samples it has no answer for are left out."""
    known = np.isfinite(seen).all(axis=1)
    return measure.condition_metrics(asked[known], seen[known]) if known.sum() > 1 else {}


def run(params: EvaluateParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Writes report.html, plots/*.json and pictures/*.png; the metrics are the executor's to write."""
    evaluation = _Evaluation(params, inputs, worker)
    seen = evaluation.see()
    if worker.rank:
        return {}
    found = evaluation.find(seen)
    shown = page.pictures(
        evaluation.samples.images,
        evaluation.held_out.load,
        evaluation.train.load,
        sizes=(len(evaluation.samples), len(evaluation.held_out)),
        copies=found.copies,
        painted=found.painted,
        seed=params.seed,
    )
    for name in ("real", "closest", "neighbors", "own"):
        if (png := getattr(shown, name)) is not None:
            out.write_bytes(f"pictures/{name}.png", png)
    plots = list(_plots(evaluation, found))
    for plot in plots:
        out.write_json(f"plots/{plot.name}.json", plot.records)
    info = evaluation.samples.info
    parents = {stage: inputs[stage].digest for stage in ("sample", "encode", "encoder", "collect")} | info.parents
    told = page.page(
        info,
        params,
        metrics=found.metrics,
        reading=page.Reading(found.judge, found.sight.reasons, found.advice),
        shown=shown,
        plots=plots,
        parents=parents,
    )
    out.write_bytes("report.html", told.encode())
    return found.metrics


def _plots(evaluation: _Evaluation, found: _Findings) -> Iterator[page.Plot]:
    labels = evaluation.held_out.labels
    yield page.control_plot(found.metrics)
    if found.drawn_classes is not None and evaluation.classes and labels is not None:
        yield page.class_plot(found.drawn_classes, labels, evaluation.classes)
    yield page.distance_plot("feature", found.copies, "distance of features")
    yield page.distance_plot("pixel", found.copies_in_pixels, "difference of pixels")
    if found.z is not None:
        yield page.representation_plot(found.z, evaluation.params.seed)
    if found.judge.task is not None:
        yield page.curve_plot(found.judge.curve, found.judge.task, found.metrics.get("network_accuracy"))
