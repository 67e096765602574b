"""Fit, or import, a guide on the rows of the cache that have what it recognizes; no encoder is constructed here."""

import logging
from collections.abc import Mapping

import torch

from components.base import Metrics
from components.cache.reader import CacheSplit, open_cache
from components.errors import DataError
from components.fields import find_field
from components.generators.config import GeneratorData
from components.generators.files import save_generator
from components.guides.base import NoiseAware
from components.guides.training import GuideTrainable, accuracies, hits_by_quarter
from components.interop.guides import LAYOUTS
from components.interop.layout import adopt, keep
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
    """Train or import, save the weights, measure on held-out rows, by noise, how well it recognizes.

    Raises: ConfigError when the cache does not suit the model or has fewer than two classes; DataError.
    """
    cache = open_cache(inputs["encode"], params.reading)
    data = GeneratorData(target=cache.target_spec, dim=cache.dim, classes=cache.classes)
    if params.model.recognizes == "text":
        data = data.model_copy(update={"more": (find_field(cache.fields, "text"),)})
    with seeded_init(params.seed):
        guide: NoiseAware = params.model.build(data)
    fields, some = (guide.reads, guide.field), () if guide.field == "representation" else (guide.field,)
    training, held_out = (split.having(some) for split in (cache.training(fields), cache.held_out("val", fields)))
    if len(training) == 0:
        raise DataError(f"no training image has a {guide.field}", fix="label or caption some, or set guide: null")
    guide.fit(training, None if training.labels is None else torch.from_numpy(training.labels))
    kept = {} if params.weights is None else adopt(guide, params.weights, LAYOUTS, where="guide.weights")
    guide.to(worker.device)
    graded, curve = {guide.metric: guide}, []
    if params.train is not None:
        trainable = GuideTrainable(guide)
        curve = train(trainable, training.fetch, training.examples, params.train, worker).curve
        graded[f"{guide.metric}_clean"] = trainable.twin
    if worker.rank != 0:
        return {}
    save_generator(guide, out)
    keep(kept, out)
    out.write_json("plots/loss.json", curve)
    metrics: Metrics = {"loss": curve[-1]["loss"]} if curve else {}
    metrics |= {"n_train": len(training), "n_val": len(held_out)}
    return metrics | _examine(params, graded, held_out)


def _examine(params: GuideParams, graded: Mapping[str, NoiseAware], split: CacheSplit) -> Metrics:
    """How well it recognizes by quarter of the times, q1 being the least noise, and how well its twin without noise
    does where it was trained; chance is without a look, e.g. always naming the commonest class.
    """
    rows, guide = evenly_spaced(len(split), _N_VAL_ROWS), next(iter(graded.values()))
    if len(rows) == 0:
        return {}
    device, n, chance = guide.mean.device, len(rows) * _N_NOISES, 0.0
    hits = {name: [0.0] * 4 for name in graded}
    for start in range(0, len(rows), _BLOCK):
        batch = {key: values.to(device) for key, values in split.rows(rows[start : start + _BLOCK]).items()}
        b = len(batch[guide.field])
        chance += guide.chance(batch[guide.field]) * b / len(rows)
        for name, one in graded.items():
            rng = BatchRng(derive_seed(params.seed, "val", start), b, device=device)
            found = hits_by_quarter(one.eval(), batch, rng, _N_NOISES)
            hits[name] = [x + y for x, y in zip(hits[name], found, strict=True)]
    metrics: Metrics = {"chance": chance}
    for name, found in hits.items():
        metrics |= accuracies(name, found, n)
    if metrics[f"{guide.metric}_q1"] <= chance:
        _log.warning(
            "the guide has not learned: where there is least noise its %s is %.2f, and %.2f without a look; %s",
            guide.metric,
            metrics[f"{guide.metric}_q1"],
            chance,
            _mend(params),
        )
    return metrics


def _mend(params: GuideParams) -> str:
    if params.train is not None:
        return "raise guide.train.steps"
    return "are the classes of the collection those of the file, in its order (sorted names)?"
