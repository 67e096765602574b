"""Fit the codec on the collection, and look at what its reconstructions lose of pictures that it was not fitted on."""

import logging
from collections.abc import Mapping

import numpy as np
import torch

from components.base import Batch, Metrics
from components.codecs.base import Codec, save_codec
from components.codecs.vqgan import Vqgan
from components.codecs.vqgan_training import VqganTrainable, perplexity
from components.collection.images import ImageIndex, open_images
from components.errors import DataError
from components.images.pictures import png_bytes, rows_grid, to_float, to_uint8
from components.interop.codecs import LAYOUTS
from components.interop.layout import adopt, keep
from components.nn.vit import seeded_init
from components.rng import BatchRng, derive_seed
from components.spacing import evenly_spaced
from components.training.config import TrainConfig
from components.training.loop import Preview, train
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
from flows.stages.codec.params import CodecParams

_BATCH, _BATCH_PIXELS = 64, 2**18  # images, and pixels of all of them, per forward pass of an examination
_MOST = 1024  # images that are measured
_SHOWN, _PREVIEWS = 32, 4
_FAR = 3.0
_log = logging.getLogger(__name__)
_LEAST_ERROR = 1e-10  # mean squared; exact reconstructions are 100 dB


def run(params: CodecParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Writes config.json, weights, plots/loss.json and pictures/reconstructions.png."""
    index = open_images(inputs["collect"], inputs.source, base_only=True, threads=worker.threads)
    images, held_out = index.split("train"), index.split("val")
    if len(images) == 0:
        raise DataError("there are no training images", fix="collect more pictures")
    with seeded_init(params.seed):
        codec: Codec = params.model.build()
    kept = {} if params.weights is None else adopt(codec, params.weights, LAYOUTS, where="codec.weights")
    codec.to(worker.device)
    shown = _Shown(held_out if len(held_out) else images, params.model.px)
    metrics: Metrics = {}
    if params.train is not None and params.objective is not None and isinstance(codec, Vqgan):
        with seeded_init(derive_seed(params.seed, "discriminator")):
            trainable = VqganTrainable(codec, params.objective)
        curve = _fit(trainable, params.train, images, shown, worker)
        metrics["loss"] = curve[-1]["loss"]
        if worker.rank == 0:
            out.write_json("plots/loss.json", curve)
    if worker.rank != 0:
        return {}
    save_codec(params.model, codec, out)
    keep(kept, out)
    codec.eval().to(worker.device)
    out.write_bytes("pictures/reconstructions.png", png_bytes(shown.draw(codec, worker.device)))
    counts: Metrics = {"n_train": float(len(images)), "n_val": float(len(held_out))}
    if params.weights is not None and codec.spec.space == "latents":
        metrics["latent_std"] = shown.latent_std(codec, worker.device)
    return metrics | counts | shown.measure(codec, worker.device)


def _fit(
    trainable: VqganTrainable, config: TrainConfig, images: ImageIndex, shown: "_Shown", worker: Worker
) -> list[dict[str, float]]:
    codec = trainable.vqgan
    px = codec.spec.image_px

    def fetch(indices: np.ndarray, _rng: BatchRng) -> Batch:
        return {"images": to_float(images.load(indices, px))}

    def draw(_step: int) -> Mapping[str, np.ndarray]:
        return {"reconstructions": shown.draw(codec, worker.device)}

    preview = Preview(max(1, config.steps // _PREVIEWS), draw)
    return train(trainable, fetch, len(images), config, worker, preview=preview).curve


class _Shown:
    """Pictures that a codec is examined on: those of val, or of train when val is empty."""

    def __init__(self, images: ImageIndex, px: int) -> None:
        self.images, self.px = images, px
        self.batch = max(1, min(_BATCH, _BATCH_PIXELS // px**2))

    def rows(self, most: int) -> np.ndarray:
        """Evenly spaced."""
        return evenly_spaced(len(self.images), most)

    @torch.no_grad()
    def draw(self, codec: Codec, device: torch.device) -> np.ndarray:
        """Originals above their reconstructions."""
        originals = self.images.load(self.rows(_SHOWN), self.px)
        parts = [originals[i : i + self.batch] for i in range(0, len(originals), self.batch)]
        again = [to_uint8(codec.decode(codec.encode(to_float(part).to(device)))) for part in parts]
        return rows_grid([originals, np.concatenate(again)], folds=2)

    @torch.no_grad()
    def latent_std(self, codec: Codec, device: torch.device) -> float:
        """Of all numbers of the latents; warns when they are far from the unit scale that generators expect."""
        rows = self.rows(_SHOWN)
        parts = [self.images.load(rows[i : i + self.batch], self.px) for i in range(0, len(rows), self.batch)]
        std = float(torch.cat([codec.encode(to_float(part).to(device)).double() for part in parts]).std())
        if not 1 / _FAR < std < _FAR:
            _log.warning("codec: latents of std %.3g, generators expect about 1: is codec.model.scale right?", std)
        return std

    @torch.no_grad()
    def measure(self, codec: Codec, device: torch.device) -> Metrics:
        """Errors of the decoded bytes; for tokens also how evenly the codebook is used."""
        rows, n_codes = self.rows(_MOST), codec.spec.n_codes
        absolute, squared, counts = 0.0, 0.0, torch.zeros(n_codes or 0)
        for start in range(0, len(rows), self.batch):
            original = to_float(self.images.load(rows[start : start + self.batch], self.px))
            target = codec.encode(original.to(device))
            error = to_float(to_uint8(codec.decode(target))).double() - original.double()
            absolute += float(error.abs().sum())
            squared += float(error.square().sum())
            if n_codes is not None:
                counts += torch.bincount(target.flatten().long().cpu(), minlength=n_codes)
        n = len(rows) * 3 * self.px**2
        health = {} if n_codes is None else {"perplexity": float(perplexity(counts)), "codes_used": _share_used(counts)}
        psnr = -10.0 * float(np.log10(max(squared / n, _LEAST_ERROR)))
        return {"psnr_db": psnr, "mean_absolute_error": absolute / n, **health}


def _share_used(counts: torch.Tensor) -> float:
    return float((counts > 0).double().mean())
