"""Fit the frozen encoder on the collection without labels, or import one; then ask what its representations know."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from components.base import Batch, Metrics
from components.collection.images import ImageIndex, open_images
from components.encoders.base import CONFIG, REDUCTION, WEIGHTS, FrozenEncoder, constant_rows, saved_config
from components.encoders.config import MoCoV3Config
from components.encoders.contrastive import MoCoV3Trainer
from components.encoders.reduction import fitted
from components.errors import ConfigError, DataError, DivergedError
from components.images.pictures import png_bytes, rows_grid, to_float, to_uint8
from components.interop.encoders import import_encoder
from components.interop.layout import keep
from components.metrics.probe import effective_rank, knn_accuracy, linear_probe_accuracy, neighbors
from components.nn.vit import seeded_init
from components.rng import BatchRng, derive_seed
from components.spacing import evenly_spaced
from components.training.loop import Preview, train
from components.training.worker import Worker
from components.weights import save_weights
from flows.identity.artifact import Inputs, Output
from flows.stages.encoder.params import EncoderParams, ProbeConfig

_COLLAPSED_STD, _COLLAPSED_RANK = 0.05, 1.5
_SHOWN_PAIRS, _SHOWN_QUERIES, _SHOWN_NEIGHBORS = 32, 16, 5
_PREVIEWS, _PREVIEW_BANK = 5, 256


@dataclass(frozen=True)
class _Encoded:
    """Some images of a split and their representations; images without one are left out."""

    index: ImageIndex
    rows: np.ndarray
    pixels: Tensor  # (n, 3 px px)
    z: Tensor  # (n, dim)
    n_constant: int

    def labels(self) -> Tensor:
        """-1 where there is none. Shapes: -> (n,) int64."""
        labels = self.index.labels
        return torch.full((len(self.rows),), -1) if labels is None else torch.from_numpy(labels[self.rows])


def run(params: EncoderParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Train or import, save, examine. Raises: DivergedError when all images get the same representation."""
    index = open_images(inputs["collect"], inputs.source, base_only=True, threads=worker.threads)
    images, held_out = index.split("train"), index.split("val")
    if len(images) < 2:
        raise DataError("an encoder needs at least two training images", got=len(images), fix="collect more pictures")
    metrics: Metrics = {}
    kept: dict[str, Tensor] = {}
    if params.train is not None:
        encoder, metrics = _fit(params, images, held_out, out, worker)
    else:
        encoder, kept = import_encoder(params.model)
        encoder.to(worker.device)
    if worker.rank != 0:
        return {}
    with out.file(WEIGHTS) as path:
        save_weights(path, encoder.network.state_dict())
    out.write_json(CONFIG, saved_config(params.model))
    keep(kept, out)
    return metrics | _examine(params, encoder, images, held_out, out)


def _fit(
    params: EncoderParams, images: ImageIndex, held_out: ImageIndex, out: Output, worker: Worker
) -> tuple[FrozenEncoder, Metrics]:
    config, method = params.train, params.contrastive
    if config is None or method is None or not isinstance(params.model, MoCoV3Config):
        raise ConfigError("only mocov3 is trained here", got=params.model.kind)
    if config.batch_size > len(images) or config.batch_size < 2:
        raise ConfigError(
            "a contrastive batch holds different images",
            got=f"encoder.train.batch_size {config.batch_size}",
            expected=f"2 to {len(images)}, the number of training images",
            fix="set encoder.train.batch_size to that",
        )
    with seeded_init(params.seed):
        trainer = MoCoV3Trainer(params.model, method)

    def fetch(indices: np.ndarray, _rng: BatchRng) -> Batch:
        return {"target": to_float(images.load(indices, params.px))}

    def draw(_step: int) -> Mapping[str, np.ndarray]:
        encoder = copy.deepcopy(trainer.base_encoder).frozen()
        bank = _encode(params, encoder, images, _PREVIEW_BANK)
        queries = _encode(params, encoder, held_out, _SHOWN_QUERIES)
        return {"neighbors": _nearest(params.px, bank, queries)} if len(bank.z) > 1 else {}

    if worker.rank == 0:
        shown = evenly_spaced(len(images), _SHOWN_PAIRS)
        rng = BatchRng(derive_seed(params.seed, "views"), len(shown))
        original = images.load(shown, params.px)
        views = [to_uint8(view) for view in trainer.views(to_float(original), rng)]
        out.write_bytes("pictures/views.png", png_bytes(rows_grid([original, *views], folds=2)))
    preview = Preview(max(1, config.steps // _PREVIEWS), draw)
    curve = train(trainer, fetch, len(images), config, worker, preview=preview).curve
    if worker.rank == 0:
        out.write_json("plots/loss.json", curve)
    last = {name: value for name, value in curve[-1].items() if name == "loss"} if curve else {}
    return trainer.base_encoder.frozen(), last


def _examine(
    params: EncoderParams, encoder: FrozenEncoder, images: ImageIndex, held_out: ImageIndex, out: Output
) -> Metrics:
    """What the representations are like, and what they know of labels that training never saw; reduces them."""
    bank, queries = (_encode(params, encoder, index, params.probe.max_images) for index in (images, held_out))
    n_constant = bank.n_constant + queries.n_constant
    if len(bank.z) < 2:
        raise DivergedError("the encoder gives constant vectors", got=f"{n_constant} images without variance", fix=_FIX)
    metrics: Metrics = {
        "representation_std": float(bank.z.std(0).mean()),
        "effective_rank": effective_rank(bank.z),
        "constant_representations": n_constant,
        "n_train": len(images),
        "n_val": len(held_out),
    }
    if metrics["representation_std"] < _COLLAPSED_STD or metrics["effective_rank"] < _COLLAPSED_RANK:
        got = {name: round(metrics[name], 4) for name in ("representation_std", "effective_rank")}
        raise DivergedError("the encoder collapsed: all images have nearly the same representation", got=got, fix=_FIX)
    if params.model.reduce is not None:
        encoder.reduction, metrics["variance_kept"] = fitted(bank.z, params.model.reduce)
        with out.file(REDUCTION) as path:
            save_weights(path, encoder.reduction.state_dict())
        bank, queries = (replace(part, z=encoder.reduction(part.z)) for part in (bank, queries))
    out.write_bytes("pictures/neighbors.png", png_bytes(_nearest(params.px, bank, queries)))
    return metrics | _probe(params.probe, bank, queries)


_FIX = "train longer or with a lower encoder.train.optimizer.lr, a larger batch, or milder augmentations"


def _encode(params: EncoderParams, encoder: FrozenEncoder, index: ImageIndex, most: int) -> _Encoded:
    rows = evenly_spaced(len(index), most)
    device = next(encoder.network.parameters()).device
    pixels, z = [], []
    for start in range(0, len(rows), params.probe.batch_size):
        images = to_float(index.load(rows[start : start + params.probe.batch_size], params.px))
        pixels.append(images.flatten(1))
        z.append(encoder(images.to(device)).cpu())
    if not z:
        return _Encoded(index, rows, torch.empty(0, 3 * params.px**2), torch.empty(0, encoder.dim), 0)
    every = torch.cat(z)
    good = torch.ones(len(rows), dtype=torch.bool)
    good[constant_rows(every)] = False
    return _Encoded(index, rows[good.numpy()], torch.cat(pixels)[good], every[good], int((~good).sum()))


def _probe(config: ProbeConfig, bank: _Encoded, queries: _Encoded) -> Metrics:
    """Accuracies on val; empty when there are no labels, or too few."""
    y, y_val = bank.labels(), queries.labels()
    known, known_val = y >= 0, y_val >= 0
    if int(known.sum()) < config.k_neighbors or not bool(known_val.any()):
        return {}
    y, y_val = y[known], y_val[known_val]
    z, z_val, k = bank.z[known], queries.z[known_val], config.k_neighbors
    return {
        "knn_accuracy": knn_accuracy(z, y, z_val, y_val, k=k),
        "knn_accuracy_pixels": knn_accuracy(bank.pixels[known], y, queries.pixels[known_val], y_val, k=k),
        "linear_probe_accuracy": linear_probe_accuracy(
            z, y, z_val, y_val, weight_decay=config.weight_decay, iterations=config.iterations
        ),
    }


def _nearest(px: int, bank: _Encoded, queries: _Encoded) -> np.ndarray:
    """Each column: an image of val (of train when val is empty), and below it its nearest training images."""
    same = len(queries.z) == 0
    asked = bank if same else queries
    k = min(_SHOWN_NEIGHBORS, len(bank.z) - same)
    shown = evenly_spaced(len(asked.z), _SHOWN_QUERIES)
    found = neighbors(asked.z, bank.z, k, exclude_self=same)[shown]
    rows = [asked.index.load(asked.rows[shown], px)]
    rows += [bank.index.load(bank.rows[column.numpy()], px) for column in found.T]
    return rows_grid(rows)
