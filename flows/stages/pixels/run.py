"""Fit the pixel generator on the cached targets and their conditions; no encoder is constructed here."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from components.base import Metrics
from components.cache.reader import CacheSplit, open_cache
from components.codecs.base import Codec, load_codec
from components.errors import DataError
from components.fields import of_fields
from components.generators.base import Generator
from components.generators.files import load_start, save_generator
from components.images.pictures import grid, png_bytes, rows_grid, to_uint8
from components.interop.layout import adopt, keep
from components.interop.pixels import LAYOUTS
from components.nn.vit import seeded_init
from components.rng import BatchRng, derive_seed, image_rng
from components.spacing import evenly_spaced
from components.training.generator import GeneratorTrainable
from components.training.loop import Preview, train
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
from flows.stages.pixels.params import PixelsParams

_N_VAL_NOISES = 4
_N_VAL_ROWS = 2048


def run(params: PixelsParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Train with previews, save the averaged weights, measure the loss on held-out images.

    Raises: ConfigError when target space, labels or number of images do not suit the model.
    """
    cache = open_cache(inputs["encode"], params.reading)
    data = params.model.data(cache.fields, cache.target_spec)
    with seeded_init(params.seed):
        generator: Generator = params.model.build(data)
    if params.init is not None:
        load_start(generator, inputs["init"].path("weights.safetensors"))
    fields = (generator.makes, *generator.conditions)
    training, held_out = cache.training(fields).having(generator.skips), cache.held_out("val", fields)
    if len(training) == 0:
        raise DataError("there is no training image", fix="collect more pictures, or label or caption some")
    generator.fit(training, derive_seed(params.seed, "conditions"), trained=params.init is not None)
    kept = {} if params.weights is None else adopt(generator, params.weights, LAYOUTS, where="pixels.weights")
    ema = params.ema if params.train is not None else None
    trainable = GeneratorTrainable(generator.to(worker.device), ema, params.earlier)
    shown = held_out if len(held_out) else cache.training(fields)
    previews = _Previews(params, trainable, shown, load_codec(inputs["codec"]).to(worker.device))
    curve = []
    if params.train is not None:
        preview = Preview(params.preview.every, previews.draw)
        curve = train(trainable, training.fetch, training.examples, params.train, worker, preview=preview).curve
    if worker.rank != 0:
        return {}
    fitted = trainable.result.eval()
    save_generator(fitted, out, earlier=trainable.earlier)
    keep(kept, out)
    out.write_json("plots/loss.json", curve)
    for name, picture in previews.draw(params.train.steps if params.train is not None else 0).items():
        out.write_bytes(f"pictures/{name}.png", png_bytes(picture))
    metrics = {"loss": curve[-1]["loss"]} if curve else {}
    return metrics | _val_loss(params, fitted, held_out.having(generator.skips)) | {"n_train": len(training)}


class _Previews:
    """Images of held-out conditions: with representations, each below the real image that it should resemble."""

    def __init__(
        self, params: PixelsParams, trainable: GeneratorTrainable[Generator], split: CacheSplit, codec: Codec
    ) -> None:
        self.rows = split.rows(evenly_spaced(len(split), params.preview.n))
        self.params, self.trainable, self.codec = params, trainable, codec

    @torch.no_grad()
    def draw(self, _step: int) -> Mapping[str, np.ndarray]:
        """The same conditions and noise at every step, so that pictures of different steps compare."""
        generator = self.trainable.result
        device = next(generator.parameters()).device
        rows = {key: values.to(device) for key, values in self.rows.items()}
        wanted = of_fields(rows, generator.conditions)
        rng = image_rng(self.params.seed, 0, len(rows["target"]), stream="preview", device=device)
        drawn = to_uint8(self.codec.decode(generator.sample(wanted, self.params.preview.sampling, rng)))
        if "representation" not in generator.conditions:
            return {"samples": grid(drawn)}
        real = to_uint8(self.codec.decode(rows["target"]))
        return {"samples": rows_grid([real, drawn], folds=max(1, round(math.sqrt(len(drawn) / 2))))}


@torch.no_grad()
def _val_loss(params: PixelsParams, generator: Generator, split: CacheSplit) -> Metrics:
    """Mean over held-out rows and several fixed noises each; empty without held-out rows."""
    rows = evenly_spaced(len(split), _N_VAL_ROWS)
    if len(rows) == 0:
        return {}
    device = next(generator.parameters()).device
    total = 0.0
    size = params.train.batch_size if params.train is not None else params.preview.n
    for start in range(0, len(rows), size):
        batch = split.rows(rows[start : start + size])
        on_device = {key: values.to(device) for key, values in batch.items()}
        for i in range(_N_VAL_NOISES):
            rng = BatchRng(derive_seed(params.seed, "val", start, i), len(batch["target"]), device=device)
            total += float(generator.loss(on_device, rng).double().sum())
    return {"val_loss": total / (len(rows) * _N_VAL_NOISES), "n_val": len(rows)}
