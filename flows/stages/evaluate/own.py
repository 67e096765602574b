"""Own picture: representations of held-out pictures are painted; is the picture that each came from found again?

This is the painter alone, without an RDM: what it does not show of a representation, no RDM can add.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from components.base import Metrics
from components.bundle.request import Request
from components.bundle.system import System, SystemSampling
from components.cache.reader import CacheSplit, open_cache
from components.cache.samples import Samples, oracle_rows
from components.codecs.base import load_codec
from components.fields import TEXT_FIELDS
from components.generators.base import Generator
from components.images.pictures import to_uint8
from components.metrics.distances import nearest
from components.pixels import load_pixels
from flows.identity.artifact import Inputs
from flows.stages.evaluate.params import EvaluateParams

_MOST = 500
"""Representations that are painted; all where there are fewer."""
_NEAREST = 5


@dataclass(frozen=True)
class Painted:
    """What the generator makes of held-out pictures' representations. Shapes: images (n, px, px, 3) uint8."""

    images: np.ndarray
    own: np.ndarray
    """Positions of these pictures among the held-out ones (n,) int64."""


def paint(
    params: EvaluateParams, inputs: Inputs, samples: Samples, keys: Sequence[str], device: torch.device
) -> Painted | None:
    """None for a generator without a condition on representations. `keys`: names of the held-out pictures, in order.

    Samples that are of just these representations (sample.representations: oracle) are not painted again.
    """
    if samples.info.dim is None or "pixels" not in inputs:
        return None
    pixels = load_pixels(inputs["pixels"]).to(device)
    texts = tuple(field for field in pixels.conditions if field in TEXT_FIELDS)
    real = open_cache(inputs["encode"]).held_out(params.split, ("representation", *texts)).having(texts)
    if not len(real):
        return None
    place = {key: i for i, key in enumerate(keys)}
    if samples.info.sampling["representations"] == "oracle" and params.split == "val":
        n = min(_MOST, len(real), len(samples))
        rows = oracle_rows(len(real), 0, n, seed=samples.info.sampling["seed"])
        images = samples.images(np.arange(n))
    else:
        rows = np.sort(np.random.default_rng(params.seed).permutation(len(real))[:_MOST])
        images = _painted(pixels, real, rows, inputs, samples)
    return Painted(images, np.array([place[key] for key in real.keys(rows)], np.int64))


def _painted(pixels: Generator, real: CacheSplit, rows: np.ndarray, inputs: Inputs, samples: Samples) -> np.ndarray:
    """Sampled as the samples were, without a guide: what is asked for is a representation, and no class."""
    told = {name: samples.info.sampling[name] for name in SystemSampling.model_fields if name in samples.info.sampling}
    sampling = SystemSampling.model_validate(told)
    sampling = sampling.model_copy(update={"pixels": _unguided(sampling), "rdm": None})
    codec = load_codec(inputs["codec"]).to(next(pixels.parameters()).device)
    system = System(rdm=None, pixels=pixels, codec=codec, sampling=sampling)
    request = Request(n=len(rows), seed=sampling.seed)
    parts = [
        system.images(system.rows(request, here, given=real.rows(rows[here.start : here.stop])))
        for here in system.split(request)
    ]
    return np.concatenate([to_uint8(part) for part in parts])


def _unguided(sampling: SystemSampling) -> object:
    options = sampling.pixels
    return options.model_copy(update={"guide": None}) if getattr(options, "guide", None) is not None else options


def own_picture(painted: np.ndarray, held_out: np.ndarray, own: np.ndarray) -> Metrics:
    """Share of paintings whose own picture is the nearest, or among the five nearest, of all held-out ones.

    `chance`: of five pictures taken at random. Shapes: painted (n, d), held_out (m, d), own (n,) -> rows of held_out.
    """
    k = min(_NEAREST, len(held_out))
    hits = nearest(painted, [held_out], k=k)[1] == own[:, None]  # (n, k)
    return {
        "own_picture_r1": float(hits[:, 0].mean()),
        "own_picture_r5": float(hits.any(axis=1).mean()),
        "own_picture_chance": k / len(held_out),
        "own_picture_n": float(len(painted)),
    }
