"""Fit the representation generator on the cached representations; no encoder is constructed here."""

import copy

import numpy as np
import torch
from torch import Tensor

from components.base import Batch, Metrics
from components.cache.reader import Cache, CacheSplit, open_cache
from components.conditions.frequencies import shares
from components.diffusion.bases.gaussians import Gaussians
from components.diffusion.bases.moments import described
from components.errors import DataError
from components.fields import of_fields
from components.generators.base import Generator
from components.generators.diffusion import Diffusion
from components.generators.files import save_generator
from components.images.pictures import png_bytes
from components.interop.layout import adopt, keep
from components.interop.representations import LAYOUTS
from components.metrics.frechet import frechet
from components.nn.vit import seeded_init
from components.rng import BatchRng, derive_seed, image_rng
from components.spacing import evenly_spaced
from components.training.generator import GeneratorTrainable
from components.training.loop import train
from components.training.worker import Worker
from components.weights import load_weights
from flows.identity.artifact import Inputs, Output
from flows.stages.rdm.chain import chain
from flows.stages.rdm.params import CheckConfig, RdmParams
from flows.stages.rdm.pictures import along, occupancy, scatter

_N_VAL_NOISES = 4


def run(params: RdmParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Train, save the averaged weights, compare what they draw with held-out representations.

    Raises: ConfigError when the dimension is not the encoder's, or labels are needed and missing.
    """
    cache = open_cache(inputs["encode"], params.reading)
    data = params.model.data(cache.fields, cache.target_spec)
    with seeded_init(params.seed):
        rdm: Generator = params.model.build(data)
    if params.init is not None:
        load_weights(rdm, inputs["init"].path("weights.safetensors"))
    training = cache.training((rdm.makes, *rdm.conditions)).having(rdm.skips)
    if len(training) == 0:
        raise DataError("there is no training image", fix="collect more pictures, or label or caption some")
    rdm.fit(training, derive_seed(params.seed, "conditions"), trained=params.init is not None)
    kept = {} if params.weights is None else adopt(rdm, params.weights, LAYOUTS, where="rdm.weights")
    fitted: Generator = rdm.to(worker.device)
    earlier, curve = None, []
    if params.train is not None:
        trainable = GeneratorTrainable(rdm, params.ema, params.earlier)
        curve = train(trainable, training.fetch, training.examples, params.train, worker).curve
        fitted, earlier = trainable.result, trainable.earlier
    if worker.rank != 0:
        return {}
    fitted.eval()
    save_generator(fitted, out, earlier=earlier)
    keep(kept, out)
    out.write_json("plots/loss.json", curve)
    metrics = {"loss": curve[-1]["loss"]} if curve else {}
    return metrics | _examine(params, fitted, cache, training, out)


def _examine(params: RdmParams, rdm: Generator, cache: Cache, training: CacheSplit, out: Output) -> Metrics:
    """Loss on held-out representations, and how close the drawn ones are to them; train rows set the floor."""
    split = cache.held_out("val", (rdm.makes, *rdm.conditions)).having(rdm.skips)
    held_out = split.rows(np.arange(len(split)))
    n_val = len(held_out["representation"])
    metrics: Metrics = {"n_train": len(training), "n_val": n_val}
    if n_val < 2:
        return metrics
    device = next(rdm.parameters()).device
    metrics["val_loss"] = _val_loss(params, rdm, {key: rows.to(device) for key, rows in held_out.items()})
    real = held_out["representation"][evenly_spaced(n_val, params.check.n)].numpy()
    seen = training.rows(evenly_spaced(len(training), params.check.n))["representation"].numpy()
    drawn = draw(rdm, params.check, params.seed, of_fields(held_out, rdm.given)).cpu().numpy()
    metrics["representation_fd"] = frechet(drawn, real)
    if len(seen) > 1:
        metrics["representation_fd_floor"] = frechet(seen, real)
    out.write_bytes("pictures/representations.png", png_bytes(scatter(real, drawn)))
    if isinstance(rdm, Diffusion) and (rdm.given or rdm.process.base.has_components):
        metrics |= _follow(params, rdm, held_out, out)
    return metrics | _describe_base(rdm, training, torch.from_numpy(drawn), out)


def _follow(params: RdmParams, rdm: Diffusion, held_out: Batch, out: Output) -> Metrics:
    """How near the chain begins to its end, and to the representations whose conditions it is given."""
    found = chain(rdm, params.check, params.seed, of_fields(held_out, rdm.given), held_out["representation"])
    records = [
        {"step": i, "t": t} | {name: values[i] for name, values in found.series.items()}
        for i, t in enumerate(found.times)
    ]
    out.write_json("plots/chain.json", records)
    out.write_bytes("pictures/chain.png", png_bytes(along(found.series)))
    return found.metrics


def _describe_base(rdm: Generator, training: CacheSplit, drawn: Tensor, out: Output) -> Metrics:
    """How well k Gaussians describe the training rows, and whether as many are drawn of each; nothing for N(0, I)."""
    base = rdm.process.base if isinstance(rdm, Diffusion) else None
    if not isinstance(base, Gaussians):
        return {}
    z, *read = (training.field(name, np.arange(len(training))) for name in (rdm.makes, *base.fields))
    base = copy.deepcopy(base).cpu()
    rows = base.of_rows(z, dict(zip(base.fields, read, strict=True)))
    shown = (shares(index, base.k).numpy() for index in (base.owner(z), base.owner(drawn)))
    out.write_bytes("pictures/components.png", png_bytes(occupancy(*shown)))
    return described(z, rows, base.k)


def draw(rdm: Generator, check: CheckConfig, seed: int, given: Batch) -> Tensor:
    """check.n representations in micro-batches, given these fields, as often as it takes. Shapes: -> (n, dim)."""
    parts, device = [], next(rdm.parameters()).device
    for start in range(0, check.n, check.batch_size):
        stop = min(check.n, start + check.batch_size)
        rng = image_rng(seed, start, stop, stream="check", device=device)
        rows = {name: values[np.arange(start, stop) % len(values)].to(device) for name, values in given.items()}
        parts.append(rdm.sample(rows, check.sampling, rng))
    return torch.cat(parts)


@torch.no_grad()
def _val_loss(params: RdmParams, rdm: Generator, batch: Batch) -> float:
    """Mean over all rows and several fixed noises each."""
    n = len(batch["representation"])
    losses = []
    for i in range(_N_VAL_NOISES):
        rng = BatchRng(derive_seed(params.seed, "val", i), n, device=next(rdm.parameters()).device)
        losses.append(float(rdm.loss(batch, rng).double().mean()))
    return sum(losses) / len(losses)
