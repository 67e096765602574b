"""Sample n images: a representation from the RDM (or of a real held-out image), then an image of it."""

from typing import Any

import numpy as np
import torch

from components.base import Batch, Metrics
from components.bundle.provenance import SCHEMA, Provenance, with_provenance
from components.bundle.request import Request
from components.bundle.system import System, SystemSampling
from components.cache.reader import CacheSplit, open_cache
from components.cache.samples import INDEX, SamplesInfo, oracle_rows, save_shard, shard_name
from components.codecs.base import load_codec
from components.fields import TEXT_FIELDS
from components.generators.base import Generator
from components.guides import load_guide
from components.images.pictures import grid, png_bytes, to_uint8
from components.pixels import load_pixels
from components.rdm import load_rdm
from components.training.report import Report
from components.training.worker import Worker
from flows.identity.artifact import Inputs, Output
from flows.stages.sample.params import SampleParams


class _Sampler:
    """Images of any range of indices; equal for any split of the indices into whole micro-batches."""

    def __init__(self, params: SampleParams, inputs: Inputs, device: torch.device) -> None:
        self.request = Request(n=params.n, seed=params.seed)
        pixels = load_pixels(inputs["pixels"]).to(device)
        self.needs_representation = "representation" in pixels.required
        oracle = self.needs_representation and params.representations == "oracle"
        self.rdm = load_rdm(inputs["rdm"]).to(device) if self.needs_representation and not oracle else None
        self.real = _real(inputs, pixels, self.rdm, oracle=oracle)
        sampling = SystemSampling.model_validate(params.model_dump(include=set(SystemSampling.model_fields)))
        follows = "guide" in inputs and any(map(sampling.follows, ("rdm", "pixels")))
        self.system = System(
            rdm=self.rdm,
            pixels=pixels,
            codec=load_codec(inputs["codec"]).to(device),
            guide=load_guide(inputs["guide"]).to(device) if follows else None,
            sampling=sampling,
        )

    def sample(self, start: int, stop: int) -> tuple[np.ndarray, Batch]:
        """Images (b, px, px, 3) uint8, and the fields that they were made from."""
        given: Batch = {}
        if self.real is not None:
            rows = oracle_rows(len(self.real), start, stop, seed=self.request.seed)
            given = self.real.rows(rows)
        batch = self.system.rows(self.request, range(start, stop), given=given)
        return to_uint8(self.system.images(batch)), batch


def _real(inputs: Inputs, pixels: Generator, rdm: Generator | None, *, oracle: bool) -> CacheSplit | None:
    """Held-out pictures whose representations or captions are given; None where nothing is."""
    read = dict.fromkeys(field for one in (rdm, pixels) if one is not None for field in one.conditions)
    texts = tuple(field for field in read if field in TEXT_FIELDS)
    if not oracle and not texts:
        return None
    held_out = open_cache(inputs["encode"]).held_out("val", ("representation", *texts) if oracle else texts)
    captioned = held_out if oracle else held_out.having(texts)
    return captioned if len(captioned) else None


def run(params: SampleParams, inputs: Inputs, out: Output, worker: Worker) -> Metrics:
    """Writes images/*.safetensors, samples.json and pictures/grid.png."""
    sampler = _Sampler(params, inputs, worker.device)
    info = _info(params, inputs, sampler)
    mine = range(info.n_shards)[worker.rows(info.n_shards)]
    n_turns = -(-info.n_shards // worker.world_size)
    shown: list[np.ndarray] = []
    for turn in worker.parts(range(n_turns)):  # as many turns on every rank: reporting is collective
        if turn < len(mine):
            images, batch = sampler.sample(*info.bounds(mine[turn]))
            with out.file(shard_name(mine[turn])) as path:
                save_shard(path, images, representation=batch.get("representation"), label=batch.get("class"))
            shown += [images] if turn * params.batch_size < params.grid else []
        worker.report(Report(step=turn + 1, total_steps=n_turns))
    picture = {}
    if worker.rank == 0:
        picture = {"grid": _grid(sampler, info, shown, min(params.grid, info.n))}
        out.write_json(INDEX, info.model_dump(mode="json"))
        out.write_bytes("pictures/grid.png", with_provenance(png_bytes(picture["grid"]), _provenance(params, info)))
    worker.report(Report(step=n_turns, images=picture, total_steps=n_turns))
    return {"n": float(info.n)}


def _grid(sampler: _Sampler, info: SamplesInfo, drawn: list[np.ndarray], n_shown: int) -> np.ndarray:
    """The first images; those of other workers are sampled again."""
    while sum(map(len, drawn)) < n_shown:
        drawn.append(sampler.sample(*info.bounds(len(drawn)))[0])
    return grid(np.concatenate(drawn)[:n_shown])


def _provenance(params: SampleParams, info: SamplesInfo) -> Provenance:
    """Of the grid. No platform: a stage's outputs hold no places."""
    given = "oracle" if params.representations == "oracle" else "captions"
    sampling = params.model_dump(mode="json", include={"batch_size", "rdm", "pixels"})
    return Provenance(
        schema_version=SCHEMA,
        bundle=None,
        parents=info.parents,
        seed=params.seed,
        index=None,
        first=0,
        n=info.n,
        shown=min(params.grid, info.n),
        columns=None,
        sampling=sampling,
        platform=None,
        condition={given: "val"} if "encode" in info.parents else {},
    )


def _info(params: SampleParams, inputs: Inputs, sampler: _Sampler) -> SamplesInfo:
    used = ["pixels", "codec"]
    used += ["rdm"] if sampler.rdm is not None else []
    used += ["guide"] if sampler.system.guide is not None else []
    used += ["encode"] if sampler.real is not None else []
    rdm_config: dict[str, Any] | None = inputs["rdm"].read_json("config.json") if sampler.rdm is not None else None
    return SamplesInfo(
        n=params.n,
        batch_size=params.batch_size,
        px=sampler.system.codec.spec.image_px,
        dim=sampler.system.pixels.data.dim if sampler.needs_representation else None,
        has_class=sampler.system.classes is not None,
        sampling=params.model_dump(mode="json", exclude={"numerics"}),
        pixels=inputs["pixels"].read_json("config.json"),
        rdm=rdm_config,
        parents={stage: inputs[stage].digest for stage in used},
    )
