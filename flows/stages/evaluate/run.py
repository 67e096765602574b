"""Measure the samples against held-out images, in features of a network that conditioned nothing; write the report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from components.base import Metrics
from components.cache.reader import CacheSplit, Column, open_cache
from components.cache.samples import Samples
from components.collection.images import open_images
from components.encoders.base import load_encoder
from components.images.pictures import to_float
from components.metrics import measure, presentation
from components.metrics.config import Task
from components.metrics.features import FeatureNet, extract
from components.metrics.fitting import RealImages, fit_network, pixel_vectors
from components.metrics.measure import Vectors
from components.metrics.memorization import Memorization, memorization
from components.metrics.report import Figure, Page, Panel, build
from components.training.report import Report
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
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


class _Evaluation:
    """One evaluation; everything happens on rank 0, whose one network makes the numbers independent of world size."""

    def __init__(self, params: EvaluateParams, inputs: Inputs, worker: Worker) -> None:
        self.params, self.inputs, self.worker = params, inputs, worker
        index = open_images(inputs["collect"], inputs.source, base_only=False, threads=worker.threads)
        held_out = index.split(params.split)
        params.features.check_size(len(held_out))
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
            metrics |= measure.class_metrics(p_generated, p_held_out, self.held_out.labels)
            metrics |= self._agreement(p_generated)
        copies = memorization(
            generated, held_out, [train], percentile=params.percentile, k=min(_N_NEIGHBORS, len(train))
        )
        in_pixels = self._pixel_copies(net)
        metrics |= measure.memorization_metrics(copies, in_pixels)
        z = self._representations()
        if z is not None:
            metrics |= measure.representation_metrics(z) | self._follows(z.generated)
        metrics |= {"n_generated": len(generated), "n_held_out": len(held_out), "n_train": len(train)}
        return _Findings(self.task, curve, metrics, copies, in_pixels, p_generated.argmax(axis=1), z)

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
        columns: Sequence[Column] = ("representation",)
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
    heard = worker.report if worker.world_size == 1 else _unheard
    alone = replace(worker, world_size=1, report=heard)
    evaluation = _Evaluation(params, inputs, alone)
    found = evaluation.find()
    shown = presentation.pictures(
        evaluation.samples.images, evaluation.held_out.load, evaluation.train.load,
        sizes=(len(evaluation.samples), len(evaluation.held_out)), copies=found.copies, seed=params.seed,
    )  # fmt: skip
    for name in ("real", "closest", "neighbors"):
        out.write_bytes(f"pictures/{name}.png", getattr(shown, name))
    panels = _write_plots(evaluation, found, out)
    out.write_bytes("report.html", build(_page(evaluation, found, shown, panels)).encode())
    return found.metrics


def _unheard(report: Report) -> None:
    """Reports are collective, and the other ranks have nothing to say."""


def _write_plots(evaluation: _Evaluation, found: _Findings, out: Output) -> list[Panel]:
    panels = []
    labels = evaluation.held_out.labels
    if found.task == "labels" and evaluation.classes and labels is not None:
        panel, records = presentation.class_panel(found.drawn_classes, labels, evaluation.classes)
        out.write_json("plots/class_histogram.json", records)
        panels.append(panel)
    kinds = (
        ("feature", found.copies, "distance of features"),
        ("pixel", found.copies_in_pixels, "difference of pixels"),
    )
    for name, copies, axis in kinds:
        panel, records = presentation.distance_panel(copies, f"Nearest training picture, by {name}s", axis)
        out.write_json(f"plots/nearest_{name}s.json", records)
        panels.append(panel)
    if found.z is not None:
        panel, records = presentation.representation_panel(found.z, evaluation.params.seed)
        out.write_json("plots/representations.json", records)
        panels.append(panel)
    out.write_json("plots/network_loss.json", found.curve)
    panels.append(presentation.curve_panel(found.curve, found.task, found.metrics.get("network_accuracy")))
    return panels


def _page(evaluation: _Evaluation, found: _Findings, shown: presentation.Pictures, panels: Sequence[Panel]) -> Page:
    info, params, inputs = evaluation.samples.info, evaluation.params, evaluation.inputs
    model = info.pixels["model"]
    how = presentation.described([one["kind"] for one in model["conditions"]], info.sampling["representations"])
    parents = {stage: inputs[stage].digest for stage in ("sample", "encode", "encoder", "collect")} | info.parents
    return Page(
        title=f"{info.n:,} pictures that do not exist",
        lead=f"Drawn by a {model['kind']} {how}, after {len(evaluation.train):,} real pictures of {info.px} pixels.",
        metrics=found.metrics,
        generated=Figure(shown.generated, "Drawn by the model, in the order they came."),
        real=Figure(shown.real, f"Real pictures of the {params.split} split, which the model has never seen."),
        closest=Figure(shown.closest, "Above: drawn. Below: the nearest training picture. Most alike first."),
        neighbors=Figure(shown.neighbors, "Top row: drawn, chosen at random. Below: the nearest training pictures."),
        panels=panels,
        params={
            "sample": info.sampling,
            "evaluate": params.model_dump(mode="json"),
            "pixels": info.pixels,
            "rdm": info.rdm,
        },
        parents=dict(sorted(parents.items())),
        notes=presentation.notes(found.task, params.split, found.metrics),
    )
