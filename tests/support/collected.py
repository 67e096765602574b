"""Collections of generated pictures, and stages run on them with a real store."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.base import Metrics
from components.collection.config import SplitConfig
from components.collection.snapshot import take_snapshot
from components.collection.source import open_source
from components.documents import parse_json
from components.images.config import DecodeRecipe
from components.store import open_store
from flows.identity.artifact import Manifest
from flows.runs.stored import StoredOutput
from flows.stages.collect import run as collect
from flows.stages.collect.params import CollectParams
from tests.support.toys import worker

PARAMS = CollectParams(
    numerics=1,
    base="all",
    labels="none",
    split=SplitConfig(seed=0, val_share=0.2, test_share=0.2, near_bits=4),
    decode=DecodeRecipe(background=(255, 255, 255), max_pixels=100_000),
    max_reject_share=0.2,
)


class Committed:
    """What an output holds, as the next stage's input."""

    def __init__(self, out: StoredOutput) -> None:
        self._out = out
        self.manifest = Manifest(schema_version=1, stage="any", files=dict(out.files))
        self.digest = hashlib.sha256(self.manifest.to_json()).hexdigest()

    def path(self, name: str) -> Path:
        return self._out.path(name)

    def read_bytes(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def read_json(self, name: str) -> Any:
        return parse_json(self.read_bytes(name), name)

    def digests(self) -> dict[str, str]:
        return {name: entry.sha256 for name, entry in self.manifest.files.items()}


class Place:
    """A folder of pictures, its lock and a store; implements Inputs."""

    def __init__(self, root: Path) -> None:
        self.root, self.pictures = root, root / "pictures"
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.lock = root / "collection.lock"
        self.artifacts: dict[str, Any] = {}

    @property
    def source(self) -> str:
        return str(self.pictures)

    @property
    def collection_lock(self) -> Path | None:
        return self.lock if self.lock.exists() else None

    def __getitem__(self, stage: str) -> Any:
        return self.artifacts[stage]

    def __contains__(self, stage: object) -> bool:
        return stage in self.artifacts

    def output(self, stage: str, name: str) -> StoredOutput:
        store, scratch = open_store(self.root / "store"), self.root / "scratch" / name
        return StoredOutput(store, f"runs/{stage}/{name}", 1, scratch, versions={}, mix_versions=False)

    def memos(self, stage: str) -> set[str]:
        """What has been memoised so far."""
        return {path.parent.name for path in (self.root / "store" / "memo" / stage).rglob("entry.json")}

    def snapshot(self, chunk_size: int = 8, *, rebuild: bool = False, follows_links: bool = False) -> None:
        source = open_source(self.source)
        take_snapshot(source, self.lock, rebuild=rebuild, chunk_size=chunk_size, follows_links=follows_links)

    def collect(self, name: str = "a", params: CollectParams = PARAMS) -> tuple[Metrics, Committed]:
        out = self.output("collect", name)
        metrics = collect.run(params, self, out, worker(self.root))
        self.artifacts["collect"] = Committed(out)
        return metrics, self.artifacts["collect"]


def scene(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A smooth color picture unlike any other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def add_scenes(place: Place, start: int, stop: int, folder: str = "") -> None:
    (place.pictures / folder).mkdir(exist_ok=True)
    for i in range(start, stop):
        scene(i).save(place.pictures / folder / f"{i:04d}.png")


def write(place: Place, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (place.pictures / name).parent.mkdir(parents=True, exist_ok=True)
        (place.pictures / name).write_bytes(data)
