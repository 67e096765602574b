"""Stage upsampler: a generator of large images, trained on pictures at two sizes, the small one by area averages.

Or imported.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as tf

from components.base import Batch, Metrics
from components.codecs.base import load_codec
from components.codecs.config import NoneConfig
from components.codecs.none import NoneCodec
from components.collection.images import ImageIndex, open_images
from components.errors import DataError
from components.generators.base import Generator
from components.generators.files import save_generator
from components.generators.upsampling import (
    HOW,
    UpsamplerSampling,
    as_images,
    shrunk,
    upsampled,
    upsampler_data,
)
from components.images.pictures import png_bytes, rows_grid, to_float, to_uint8
from components.interop.layout import adopt, keep
from components.interop.upsamplers import LAYOUTS
from components.metrics.psnr import psnr_db
from components.nn.vit import seeded_init
from components.rng import BatchRng, image_rng
from components.spacing import evenly_spaced
from components.target import LOW_RES
from components.text import load_text
from components.text.base import tidy
from components.text.model import TextModel
from components.training.generator import GeneratorTrainable
from components.training.loop import Preview, train
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
from flows.stages.upsampler.params import UpsamplerParams

_SHOWN, _PREVIEWS, _BATCH = 8, 4, 64
_MOST_DB = 100.0


def run(params: UpsamplerParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Writes the generator, sampling.json, plots/loss.json and pictures/upsampled.png.

    Raises: DataError without training pictures, ConfigError for a class condition without labels.
    """
    index = open_images(inputs["collect"], inputs.source, base_only=False, threads=worker.threads)
    images, held_out = index.split("train"), index.split("val")
    if len(images) == 0:
        raise DataError("there are no training images", fix="collect more pictures")
    small = load_codec(inputs["codec"]).spec
    channels = small.shape[0] if small.space == "pixels" else 3
    text = load_text(inputs["text"]) if "text" in inputs else None
    large = NoneCodec(NoneConfig(kind="none", channels=channels, px=params.px))
    pairs = _Pairs(images, large, small.image_px, text)
    told = () if text is None else tuple(field for field in text.fields if field.name == "ids")
    data = upsampler_data(channels, small.image_px, params.px, index.classes, told)
    with seeded_init(params.seed):
        generator: Generator = params.model.build(data)
    generator.conditioner.fit(pairs.labels(), params.seed, trained=False)
    kept = {} if params.weights is None else adopt(generator, params.weights, LAYOUTS, where="upsampler.weights")
    trainable = GeneratorTrainable(generator.to(worker.device), params.ema if params.train is not None else None)
    how = UpsamplerSampling(how=params.sampling, noise=params.noise)
    looks = _Looks(params.seed, pairs.of(held_out if len(held_out) else images), how, worker.device)

    def draw(_step: int) -> Mapping[str, np.ndarray]:
        return {"upsampled": looks.draw(trainable.result)}

    curve = []
    if params.train is not None:
        preview = Preview(max(1, params.train.steps // _PREVIEWS), draw)
        curve = train(trainable, pairs.fetch, len(images), params.train, worker, preview=preview).curve
    if worker.rank != 0:
        return {}
    fitted = trainable.result.eval()
    save_generator(fitted, out)
    keep(kept, out)
    out.write_json(HOW, how.model_dump(mode="json"))
    out.write_json("plots/loss.json", curve)
    out.write_bytes("pictures/upsampled.png", png_bytes(looks.draw(fitted)))
    counts: Metrics = {"n_train": float(len(images)), "n_val": float(len(held_out))}
    loss = {"loss": curve[-1]["loss"]} if curve else {}
    return {**loss, **counts, **looks.measure(fitted, params.n_val)}


class _Pairs:
    """Pictures at two sizes, as an upsampler trains on them, and what a text model makes of one of their captions."""

    def __init__(self, images: ImageIndex, large: NoneCodec, small: int, text: TextModel | None) -> None:
        self.images, self.large, self.small, self.text = images, large, small, text

    def of(self, images: ImageIndex) -> "_Pairs":
        """Other pictures, in the same way."""
        return _Pairs(images, self.large, self.small, self.text)

    @cached_property
    def _tidied(self) -> list[list[str]]:
        """Captions of every picture; an empty one where there are none."""
        return [[c for c in map(tidy, given or ()) if c] or [""] for given in self.images.column("caption")]

    def labels(self) -> Batch:
        """The class of every picture, where there are any."""
        labels = self.images.labels
        return {} if labels is None else {"class": torch.from_numpy(labels)}

    def captions(self, indices: np.ndarray, rng: BatchRng | None) -> Batch:
        """Fields of a random caption of each picture; of its first one without `rng`."""
        if self.text is None:
            return {}
        given = [self._tidied[i] for i in indices.tolist()]
        at = np.zeros(len(given)) if rng is None else rng.uniform().cpu().numpy()
        return self.text.rows([its[int(share * len(its))] for its, share in zip(given, at, strict=True)])

    def fetch(self, indices: np.ndarray, rng: BatchRng | None = None) -> Batch:
        target = self.large.encode(to_float(self.images.load(indices, self.large.spec.image_px)))
        named = {name: values[torch.from_numpy(np.asarray(indices))] for name, values in self.labels().items()}
        told = self.captions(np.asarray(indices), rng)
        return {"target": target, LOW_RES: shrunk(target, self.small), **named, **told}


class _Looks:
    """Held-out pictures beside what is made of their small versions."""

    def __init__(self, seed: int, pairs: _Pairs, how: UpsamplerSampling, device: torch.device) -> None:
        self.seed, self.pairs, self.how, self.device = seed, pairs, how, device

    @torch.no_grad()
    def made(self, generator: Generator, rows: np.ndarray, start: int) -> tuple[Batch, Tensor]:
        """These pictures, and the large images of their small ones."""
        batch = self.pairs.fetch(rows)
        rng = image_rng(self.seed, start, start + len(rows), stream="upsampled", device=self.device)
        small = as_images(batch[LOW_RES]).to(self.device)
        there = {name: values.to(self.device) for name, values in batch.items()}
        return batch, upsampled(generator, small, self.how, rng, batch=there).cpu()

    def draw(self, generator: Generator) -> np.ndarray:
        """From above: the small image, enlarged by bicubic interpolation, by the upsampler, and the picture itself."""
        batch, made = self.made(generator, evenly_spaced(len(self.pairs.images), _SHOWN), 0)
        px, small = batch["target"].shape[-1], batch[LOW_RES]
        blocks = small.repeat_interleave(px // small.shape[-1], 2).repeat_interleave(px // small.shape[-1], 3)
        return rows_grid([to_uint8(as_images(x)) for x in (blocks, _bicubic(small, px), made, batch["target"])])

    def measure(self, generator: Generator, n: int) -> Metrics:
        """Signal to noise against the pictures themselves, in dB, beside bicubic interpolation, and of the result, made
        small again, against the small image that it was made of."""
        rows = evenly_spaced(len(self.pairs.images), n)
        parts: list[tuple[Tensor, ...]] = []
        for start in range(0, len(rows), _BATCH):
            batch, made = self.made(generator, rows[start : start + _BATCH], start)
            small, large = batch[LOW_RES], batch["target"]
            parts.append((large, made, _bicubic(small, large.shape[-1]), small, shrunk(made, small.shape[-1])))
        truth, drawn, plain, before, after = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
        found = {"psnr_db": (truth, drawn), "psnr_bicubic_db": (truth, plain), "consistency_db": (before, after)}
        return {name: min(_MOST_DB, psnr_db(a, b)) for name, (a, b) in found.items()}


def _bicubic(small: Tensor, px: int) -> Tensor:
    return tf.interpolate(small.float(), (px, px), mode="bicubic").round().clamp(0, 255).to(torch.uint8)
