"""What benchmarks.memory measures: stages that see every picture, on a folder of pictures with a store beside it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.cache.samples import INDEX, SamplesInfo, save_shard, shard_name
from components.codecs.config import NoneConfig
from components.collection.config import SplitConfig
from components.collection.images import open_images
from components.collection.snapshot import take_snapshot
from components.collection.source import open_source
from components.encoders.config import MoCoV3Config
from components.images.config import DecodeRecipe, ViewRecipe
from components.metrics.config import FeatureConfig
from components.store import open_store
from components.training.checkpoint import lone_worker
from components.training.config import TrainConfig
from components.training.worker import Worker
from components.weights import save_weights
from flows.identity.artifact import Manifest
from flows.runs.stored import StoredOutput
from flows.stages.collect import run as collect_stage
from flows.stages.encode import run as encode_stage
from flows.stages.evaluate import run as evaluate_stage
from flows.stages.evaluate.params import EvaluateParams


class _Folder:
    """An artifact as a plain folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.digest = root, "0" * 64
        root.mkdir(exist_ok=True)

    def path(self, name: str) -> Path:
        return self.root / name

    def read_json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text())


class _Stored(_Folder):
    """The collect artifact: where its files lie in the store, written down by collect() for encode()."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        listing = self.read_json("listing.json")
        self._paths = {name: Path(path) for name, path in listing["paths"].items()}
        self.manifest = Manifest.model_validate(listing["manifest"])

    def path(self, name: str) -> Path:
        return self._paths[name] if hasattr(self, "_paths") else super().path(name)


@dataclass
class _Inputs:
    root: Path

    @property
    def source(self) -> str:
        return str(self.root / "pictures")

    @property
    def collection_lock(self) -> Path:
        return self.root / "collection.lock"

    def __getitem__(self, stage: str) -> Any:
        return (_Stored if stage == "collect" else _Folder)(self.root / stage)

    def __contains__(self, stage: object) -> bool:
        return (self.root / str(stage)).is_dir()


def collect_params(near_bits: int = 4) -> collect_stage.CollectParams:
    """Params of the stage."""
    return collect_stage.CollectParams(
        numerics=1,
        base="all",
        labels="none",
        split=SplitConfig(seed=0, val_share=0.1, test_share=0.1, near_bits=near_bits),
        decode=DecodeRecipe(background=(255, 255, 255), max_pixels=10_000),
        max_reject_share=0.0,
    )


def collect(root: Path) -> None:
    """Snapshot and stage collect."""
    take_snapshot(open_source(str(root / "pictures")), root / "collection.lock", rebuild=False)
    out = _output(root, "collect")
    collect_stage.run(collect_params(), _Inputs(root), out, _worker(root))
    listing = {
        "paths": {name: str(out.path(name)) for name in out.files},
        "manifest": Manifest(schema_version=1, stage="collect", files=out.files).model_dump(mode="json"),
    }
    (_Folder(root / "collect").path("listing.json")).write_text(json.dumps(listing))


def encode(root: Path) -> None:
    """Stage encode with a tiny encoder; collect() has run."""
    model, encoder, codec = MoCoV3Config.tiny(), _Folder(root / "encoder"), _Folder(root / "codec")
    save_weights(encoder.path("weights.safetensors"), model.build().network.state_dict())
    encoder.path("config.json").write_text(model.model_dump_json())
    codec.path("config.json").write_text(NoneConfig(kind="none", channels=1, px=8).model_dump_json())
    params = encode_stage.EncodeParams(
        numerics=1,
        batch_size=256,
        views=ViewRecipe(seed=0, n_views=2, crop_area=(0.8, 1.0), flip_prob=0.5),
        max_reject_share=0.0,
    )
    encode_stage.run(params, _Inputs(root), _output(root, "encode"), _worker(root))


def evaluate(root: Path) -> None:
    """Stage evaluate with a judge that trains for a moment, on half as many samples as pictures; encode() has run."""
    inputs, out, drawn = _Inputs(root), _Folder(root / "sample"), np.random.default_rng(1)
    info = SamplesInfo(
        n=len(open_images(inputs["collect"], inputs.source, base_only=False)) // 2,
        batch_size=500,
        px=8,
        dim=None,
        has_class=False,
        sampling={"representations": "none"},
        pixels={"model": {"kind": "dit", "conditions": []}},
        rdm=None,
        parents={},
    )
    (out.root / "images").mkdir()
    for shard in range(info.n_shards):
        start, stop = info.bounds(shard)
        images = drawn.integers(0, 256, (stop - start, 8, 8, 3), np.uint8)
        save_shard(out.path(shard_name(shard)), images, representation=None, label=None)
    out.path(INDEX).write_text(info.model_dump_json())
    params = EvaluateParams(
        numerics=1,
        split="test",
        seed=0,
        features=FeatureConfig(task="self", px=8, width=8, dim=16),
        train=TrainConfig.tiny(),
        batch_size=256,
        k_neighbors=3,
        n_bootstrap=5,
        percentile=5.0,
    )
    evaluate_stage.run(params, inputs, _output(root, "evaluate"), _worker(root))


def _output(root: Path, stage: str) -> StoredOutput:
    prefix = f"runs/{stage}/{hashlib.sha256(stage.encode()).hexdigest()}"
    return StoredOutput(open_store(root / "store"), prefix, 1, root / "scratch", versions={}, mix_versions=False)


def _worker(root: Path) -> Worker:
    private = root / "private"
    private.mkdir(exist_ok=True)
    return lone_worker(torch.device("cpu"), private, threads=2)
