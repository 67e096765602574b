"""Artifacts as plain folders: a stage's inputs and outputs without a store, and the smallest ones that load."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.cache.reader import CacheInfo, cache_fields
from components.cache.shards import ShardWriter, shard_name
from components.codecs.config import NoneConfig
from components.collection.images import index_name, index_schema
from components.encoders.config import MoCoV3Config
from components.generators.config import GeneratorData
from components.generators.files import save_generator
from components.pixels.dit import DitConfig
from components.rdm import RdmConfig
from components.target import TargetSpec
from components.weights import save_weights
from flows.identity.artifact import FileEntry, Manifest
from tests.support.generators import BY_CLASS, conditions

PX, DIM, CLASSES = 8, 8, ("bar", "post")
SPEC = TargetSpec(space="pixels", shape=(1, PX, PX), dtype="uint8", n_codes=None, image_px=PX)


class FolderArtifact:
    """A folder that a stage reads and writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        found = (p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())
        return sorted(name for name in found if name != "manifest.json")

    @property
    def manifest(self) -> Manifest:
        files = {}
        for name in self.names():
            data = self.read_bytes(name)
            files[name] = FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        return Manifest(schema_version=1, stage=self.root.name, files=files)

    def commit(self) -> None:
        """Let manifest.json say what is there now."""
        self.write_bytes("manifest.json", self.manifest.to_json())

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.manifest.to_json()).hexdigest()

    def path(self, name: str) -> Path:
        return self.root / name

    def release(self, name: str) -> None: ...

    def read_bytes(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        yield self.path(name)

    def write_bytes(self, name: str, data: bytes) -> None:
        with self.file(name) as path:
            path.write_bytes(data)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, json.dumps(value, sort_keys=True, allow_nan=False).encode())

    def memoised(self, name: str, _key: str, make: Callable[[Path], None]) -> FileEntry:
        with self.file(name) as path:
            make(path)
        return self.manifest.files[name]


class FolderInputs:
    """Parents by name."""

    def __init__(self, root: Path, source: str = "demo") -> None:
        self.root, self.source = root, source
        self.collection_lock: Path | None = None

    def __getitem__(self, stage: str) -> FolderArtifact:
        return FolderArtifact(self.root / stage)

    def __contains__(self, stage: object) -> bool:
        return (self.root / str(stage)).is_dir()


def draw_bars(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gray images of a bright row (class 0) or column (class 1), no two alike. Shapes: (n, 8, 8, 3) uint8, (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 80, (n, PX, PX, 1)).astype(np.uint8).repeat(3, axis=3)
    for image, label, at in zip(images, labels, rng.integers(1, PX - 1, n), strict=True):
        (image if label == 0 else image.swapaxes(0, 1))[at] = 255
    return images, labels


def represent(images: np.ndarray) -> np.ndarray:
    """A fixed random projection, standardized per row. Shapes: (n, 8, 8, 3) -> (n, 8) float32."""
    weights = np.random.default_rng(9).normal(size=(PX * PX, DIM))
    z = images[..., 0].reshape(len(images), -1) / 255 @ weights
    return ((z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True, ddof=1)).astype(np.float32)


def make_collect(root: Path, source: Path, splits: Sequence[str], *, labeled: bool = True) -> np.ndarray:
    """A collection of one PNG per split name, with its index."""
    import pyarrow as pa
    from PIL import Image

    source.mkdir(parents=True, exist_ok=True)
    images, labels = draw_bars(len(splits))
    rows = []
    for i, (image, label, split) in enumerate(zip(images, labels, splits, strict=True)):
        path = source / f"{i:04d}.png"
        Image.fromarray(image).save(path)
        data = path.read_bytes()
        rows.append(
            {
                "key": path.name,
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
                "width": PX,
                "height": PX,
                "hash": bytes(16),
                "constant": False,
                "split": split,
                "label": CLASSES[label] if labeled else None,
                "caption": None,
            }
        )
    out = FolderArtifact(root)
    with out.file(index_name("c00000")) as path, pa.ipc.new_file(str(path), index_schema()) as file:
        file.write_table(pa.Table.from_pylist(rows, schema=index_schema()))
    listing = {
        "schema": 1,
        "decode": {"background": [255, 255, 255], "max_pixels": 10**6},
        "classes": list(CLASSES) if labeled else None,
        "chunks": [{"name": "c00000", "count": len(rows)}],
    }
    out.write_json("collection.json", listing)
    out.write_json("base.json", listing)
    return images


def make_encode(root: Path, images: np.ndarray, splits: Sequence[str], *, labeled: bool = True) -> None:
    """A cache with one view per image."""
    out, fields = FolderArtifact(root), cache_fields(DIM, SPEC, CLASSES if labeled else None)
    rows = [
        {
            "key": f"{i:04d}.png",
            "sha256": "0" * 64,
            "split": split,
            "caption": None,
            "view": 0,
            "class": CLASSES[i % 2] if labeled else None,
        }
        for i, split in enumerate(splits)
    ]
    with out.file(shard_name("c00000")) as path, ShardWriter(path, fields) as shard:
        shard.add(rows, {"representation": represent(images), "target": images[..., :1].transpose(0, 3, 1, 2)})
    info = CacheInfo(
        fields=fields,
        target=SPEC,
        n_views=1,
        counts={name: list(splits).count(name) for name in ("train", "val", "test")},
        chunks=["c00000"],
    )
    out.write_json("cache.json", info.model_dump(mode="json"))


def make_generators(root: Path, condition: str, *, labeled: bool = True, class_rdm: bool = False) -> None:
    """Artifacts pixels and codec, and rdm where pixels reads it, with random weights that are not all zero."""
    data = GeneratorData(target=SPEC, dim=DIM, classes=CLASSES if labeled else None)
    pixels = DitConfig.tiny().model_copy(update={"conditions": conditions(condition)}).build(data)
    randomize(pixels)
    save_generator(pixels, FolderArtifact(root / "pixels"))
    if condition == "representation":
        model = RdmConfig.tiny().model_copy(update={"dim": DIM, "conditions": BY_CLASS if class_rdm else ()})
        rdm = model.build(data)
        randomize(rdm)
        save_generator(rdm, FolderArtifact(root / "rdm"))
    codec = NoneConfig(kind="none", channels=1, px=PX)
    FolderArtifact(root / "codec").write_json("config.json", codec.model_dump(mode="json"))


def make_encoder(root: Path) -> FolderArtifact:
    """An encoder artifact: the smallest MoCo v3, with random weights."""
    artifact, config = FolderArtifact(root), MoCoV3Config.tiny()
    network = config.build().network
    randomize(network)
    with artifact.file("weights.safetensors") as path:
        save_weights(path, network.state_dict())
    artifact.write_json("config.json", config.model_dump(mode="json"))
    return artifact


def randomize(module: torch.nn.Module, seed: int = 0) -> None:
    """Small random weights everywhere, also where the initialization has zeros."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.2)


def contents(artifact: FolderArtifact) -> Mapping[str, bytes]:
    """Every file of an artifact."""
    return {name: artifact.read_bytes(name) for name in artifact.names()}
