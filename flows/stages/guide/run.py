"""Fit, or import, a noise-aware classifier of the labeled rows of the cache; no encoder is constructed here."""

import logging
from collections.abc import Mapping

import torch

from components.base import Metrics
from components.cache.reader import CacheSplit, open_cache
from components.errors import DataError
from components.generators.config import GeneratorData
from components.generators.files import save_generator
from components.guides.classifier import Classifier
from components.guides.training import GuideTrainable, accuracies, hits_by_quarter
from components.interop.guides import LAYOUTS
from components.interop.layout import adopt, keep
from components.metrics.histogram import class_counts
from components.nn.vit import seeded_init
from components.rng import BatchRng, derive_seed
from components.spacing import evenly_spaced
from components.training.loop import train
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
from flows.stages.guide.params import GuideParams

_N_NOISES = 4
"""Per held-out row and quarter of the times."""
_N_VAL_ROWS = 2048
_BLOCK = 256
_log = logging.getLogger(__name__)


def run(params: GuideParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Train or import, save the weights, measure the accuracy on held-out rows by noise.

    Raises: ConfigError when the cache does not suit the model or has fewer than two classes; DataError.
    """
    cache = open_cache(inputs["encode"])
    data = GeneratorData(target=cache.target_spec, dim=cache.dim, classes=cache.classes)
    with seeded_init(params.seed):
        guide: Classifier = params.model.build(data)
    fields = (guide.reads, "class")
    training, held_out = (split.having(("class",)) for split in (cache.training(fields), cache.held_out("val", fields)))
    if training.labels is None or len(training) == 0:
        raise DataError("no training image has a label", fix="label some, or set guide: null")
    guide.fit(training, torch.from_numpy(training.labels))
    kept = {} if params.weights is None else adopt(guide, params.weights, LAYOUTS, where="guide.weights")
    guide.to(worker.device)
    graded, curve = {"accuracy": guide}, []
    if params.train is not None:
        trainable = GuideTrainable(guide)
        curve = train(trainable, training.fetch, len(training), params.train, worker).curve
        graded["accuracy_clean"] = trainable.twin
    if worker.rank != 0:
        return {}
    save_generator(guide, out)
    keep(kept, out)
    out.write_json("plots/loss.json", curve)
    metrics: Metrics = {"loss": curve[-1]["loss"]} if curve else {}
    metrics |= {"n_train": len(training), "n_val": len(held_out)}
    return metrics | _examine(params, graded, held_out)


def _examine(params: GuideParams, graded: Mapping[str, Classifier], split: CacheSplit) -> Metrics:
    """Accuracy by quarter of the times, q1 being the least noise, of the guide and, where it was trained, of its twin
    without noise; chance is always naming the commonest class.
    """
    rows = evenly_spaced(len(split), _N_VAL_ROWS)
    if len(rows) == 0 or split.labels is None:
        return {}
    frequencies, n = graded["accuracy"].frequencies, len(rows) * _N_NOISES
    device = frequencies.device
    counts = class_counts(split.labels[rows], len(frequencies))
    metrics: Metrics = {"chance": float(counts.max() / counts.sum())}
    for name, classifier in graded.items():
        classifier.eval()
        hits = [0.0] * 4
        for start in range(0, len(rows), _BLOCK):
            batch = {key: values.to(device) for key, values in split.rows(rows[start : start + _BLOCK]).items()}
            rng = BatchRng(derive_seed(params.seed, "val", start), len(batch["class"]), device=device)
            hits = [a + b for a, b in zip(hits, hits_by_quarter(classifier, batch, rng, _N_NOISES), strict=True)]
        metrics |= accuracies(name, hits, n)
    if metrics["accuracy_q1"] <= metrics["chance"]:
        _log.warning(
            "the guide has not learned: where there is least noise it names %.0f%% of held-out classes right, and "
            "always naming the commonest one %.0f%%; %s",
            100 * metrics["accuracy_q1"], 100 * metrics["chance"], _mend(params),
        )  # fmt: skip
    return metrics


def _mend(params: GuideParams) -> str:
    if params.train is not None:
        return "raise guide.train.steps"
    return "are the classes of the collection those of the file, in its order (sorted names)?"
