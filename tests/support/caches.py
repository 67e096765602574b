"""A cache with fields of every kind, and conditions that read them."""

from pathlib import Path
from typing import Any

import numpy as np

from components.cache.reader import CacheInfo, cache_fields
from components.cache.shards import ShardWriter, shard_name
from components.conditions.config import ImageConfig, SequenceConfig, VectorConfig
from components.fields import FieldSpec
from components.target import TargetSpec
from tests.support.folders import FolderArtifact

DIM = 5
TEXT = FieldSpec(name="text", dtype="float32", shape=(3,), nullable=True)
TOKENS = FieldSpec(name="tokens", dtype="float16", shape=(4,), ragged=True, nullable=True)
LOW_RES = FieldSpec(name="low_res", dtype="uint8", shape=(2, 3, 3))
COUNT = FieldSpec(name="count", dtype="int32", shape=(), nullable=True)
MORE = (TEXT, TOKENS, LOW_RES, COUNT)
LENGTHS = (2, 0, 3, None, 1, 3, None, 2)
"""Tokens of each picture, again and again."""
SPLITS = ("train", "train", "train", "train", "val", "train", "train", "test")
VECTOR, SEQUENCE, IMAGE = (kind.tiny() for kind in (VectorConfig, SequenceConfig, ImageConfig))


def values_of(i: int, target: TargetSpec) -> dict[str, Any]:
    """What the fields hold of picture i; every third has no text, and no count."""
    rng, n = np.random.default_rng(i), LENGTHS[i % len(LENGTHS)]
    high = target.n_codes or 256
    return {
        "representation": rng.normal(size=DIM).astype(np.float32),
        "target": rng.integers(0, high, target.shape).astype(target.dtype),
        "text": None if i % 3 == 2 else rng.normal(size=3).astype(np.float32),
        "tokens": None if n is None else rng.normal(size=(n, 4)).astype(np.float16),
        "low_res": rng.integers(0, 256, (2, 3, 3)).astype(np.uint8),
        "count": None if i % 3 == 2 else np.asarray(i, np.int32),
    }


def make_cache(root: Path, target: TargetSpec, n: int = 16) -> FolderArtifact:
    """n pictures in two shards, one view each, without labels."""
    out, fields = FolderArtifact(root), (*cache_fields(DIM, target, None), *MORE)
    for chunk, pictures in (("c00000", range(n // 2)), ("c00001", range(n // 2, n))):
        with out.file(shard_name(chunk)) as path, ShardWriter(path, fields) as shard:
            for start in pictures[::4]:
                group = range(start, min(start + 4, pictures.stop))
                made = [values_of(i, target) for i in group]
                rows = [
                    {"key": f"{i}.png", "sha256": "0" * 64, "split": SPLITS[i % 8], "view": 0}
                    | {"class": None, "caption": None}
                    for i in group
                ]
                shard.add(rows, {name: [one[name] for one in made] for name in made[0]})
    info = CacheInfo(fields=fields, target=target, n_views=1, counts={}, chunks=["c00000", "c00001"])
    out.write_json("cache.json", info.model_dump(mode="json"))
    return out
