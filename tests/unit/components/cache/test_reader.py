"""The encode cache: what is written is read, and training never sees a held-out row."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.cache.reader import Cache, CacheInfo, cache_fields, open_cache
from components.cache.shards import ShardWriter, shard_name
from components.errors import ArtifactError, ShapeError
from components.rng import BatchRng
from components.target import TargetSpec
from tests.support.folders import FolderArtifact

DIM, N_VIEWS, CLASSES = 5, 3, ["cat", "dog"]
SPLITS = ["train", "test", "train", "val", "train", "val", "train", "test", "train", "train"]


def _spec(dtype: Any) -> TargetSpec:
    space: Any = {"uint8": "pixels", "int32": "tokens"}.get(dtype, "latents")
    shape = (2, 2) if space == "tokens" else (3, 2, 2)
    codes = 99 if space == "tokens" else None
    return TargetSpec(space=space, shape=shape, dtype=dtype, n_codes=codes, image_px=8)


def _write(root: Path, dtype: str = "uint8", classes: list[str] | None = CLASSES) -> FolderArtifact:
    """Row (picture, view) holds the number 10 picture + view everywhere. Two shards, batches of two pictures."""
    out, spec = FolderArtifact(root), _spec(dtype)
    fields = cache_fields(DIM, spec, classes)
    for shard, pictures in (("c00000", range(6)), ("c00001", range(6, 10))):
        with out.file(shard_name(shard)) as path, ShardWriter(path, fields) as writer:
            for start in pictures[::2]:
                rows = [
                    {"key": f"{i}.png", "sha256": "0" * 64, "split": SPLITS[i], "view": view}
                    | {
                        "class": [*CLASSES, None][i % 3] if classes else None,
                        "caption": [f"picture {i}", "more"] if i else None,
                    }
                    for i in (start, start + 1)
                    for view in range(N_VIEWS if SPLITS[i] == "train" else 1)
                ]
                values = np.array([10 * int(row["key"][:-4]) + row["view"] for row in rows])
                z = np.repeat(values[:, None], DIM, 1).astype(np.float32)
                target = np.broadcast_to(values.reshape(-1, *[1] * len(spec.shape)), (len(values), *spec.shape))
                writer.add(rows, {"representation": z, "target": target.astype(dtype)})
    counts = {name: SPLITS.count(name) for name in ("train", "val", "test")}
    chunks = ["c00000", "c00001"]
    info = CacheInfo(fields=fields, target=spec, n_views=N_VIEWS, counts=counts, chunks=chunks)
    out.write_json("cache.json", info.model_dump(mode="json"))
    return out


@pytest.mark.parametrize("ram_bytes", [0, 2**30])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int32"])
def test_rows_are_those_that_were_written(tmp_path: Path, dtype: str, ram_bytes: int) -> None:
    cache = open_cache(_write(tmp_path, dtype), ram_bytes=ram_bytes)
    assert (cache.dim, cache.target_spec, cache.classes) == (DIM, _spec(dtype), tuple(CLASSES))
    train = cache.training()
    assert len(train) == 6
    pictures = [i for i, s in enumerate(SPLITS) if s == "train"]
    for view in range(N_VIEWS):
        batch = train.rows([5, 0, 3, 0], view)
        wanted = torch.tensor([10 * pictures[i] + view for i in (5, 0, 3, 0)])
        assert batch["representation"].dtype == torch.float32
        assert (batch["representation"] == wanted[:, None]).all()
        assert batch["target"].shape == (4, *_spec(dtype).shape)
        assert str(batch["target"].dtype) == f"torch.{dtype}"
        assert (batch["target"].flatten(1) == wanted[:, None]).all()
        assert batch["class"].tolist() == [[0, 1, -1][pictures[i] % 3] for i in (5, 0, 3, 0)]
    assert train.keys([1, 0]) == ["2.png", "0.png"]
    assert train.captions([1, 0]) == [["picture 2", "more"], None]
    assert len(train.rows([])["target"]) == 0


@pytest.mark.parametrize("ram_bytes", [0, 2**30])
def test_fetch_draws_every_view_of_train_pictures_and_nothing_else(tmp_path: Path, ram_bytes: int) -> None:
    cache = open_cache(_write(tmp_path), ram_bytes=ram_bytes)
    train = cache.training()
    seen = set()
    for step in range(30):
        indices = np.random.default_rng(step).integers(0, len(train), 32)
        batch = train.fetch(indices, BatchRng(step, 32))
        again = train.fetch(indices, BatchRng(step, 32))
        assert all((batch[name] == again[name]).all() for name in batch)
        values = batch["representation"][:, 0].long().tolist()
        assert (batch["target"].flatten(1) == batch["representation"][:, :1]).all()  # z with its own pixels
        keys = [int(key[:-4]) for key in train.keys(indices)]
        assert [v // 10 for v in values] == keys
        seen |= set(values)
    assert seen == {10 * i + view for i, s in enumerate(SPLITS) if s == "train" for view in range(N_VIEWS)}


def test_the_views_of_a_rank_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    train = open_cache(_write(tmp_path)).training()
    indices = np.arange(6)
    whole = train.fetch(indices, BatchRng(3, 6))["representation"]
    half = train.fetch(indices[3:], BatchRng(3, 6, start=3))["representation"]
    assert (whole[3:] == half).all()


def test_held_out_pictures_have_one_view(tmp_path: Path) -> None:
    cache = open_cache(_write(tmp_path))
    test = cache.held_out("test")
    assert test.keys(range(len(test))) == ["1.png", "7.png"]
    assert test.fetch(np.array([1, 0]), BatchRng(0, 2))["representation"][:, 0].tolist() == [70, 10]
    with pytest.raises(ShapeError, match="no such view"):
        test.rows([0], view=1)
    with pytest.raises(ArtifactError, match="val or test"):
        cache.held_out("train")  # type: ignore[arg-type]


def test_without_labels_there_is_no_class(tmp_path: Path) -> None:
    train = open_cache(_write(tmp_path, classes=None)).training()
    assert train.labels is None
    assert set(train.rows([0])) == {"target", "representation"}


def test_a_reader_may_leave_columns_out(tmp_path: Path) -> None:
    train = open_cache(_write(tmp_path)).training(("representation",))
    assert set(train.fetch(np.arange(3), BatchRng(0, 3))) == {"representation"}


def test_draws_must_fit_the_batch(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="one draw per picture"):
        open_cache(_write(tmp_path)).training().fetch(np.arange(3), BatchRng(0, 4))


def test_a_batch_is_a_copy(tmp_path: Path) -> None:
    train = open_cache(_write(tmp_path)).training()
    train.rows([0])["representation"].fill_(7)
    assert (train.rows([0])["representation"] == 0).all()


def test_fetch_costs_microseconds(tmp_path: Path) -> None:
    """A generous bound (the target is some tens): it catches a gather in Python, not a slow machine."""
    spec, n = _spec("uint8"), 4096
    fields = cache_fields(256, spec, None)
    info = CacheInfo(fields=fields, target=spec, n_views=1, counts={}, chunks=[])
    rows = [{"key": "k", "sha256": "", "split": "train", "class": None, "caption": None, "view": 0}] * n
    with ShardWriter(tmp_path / "shard.arrow", fields) as writer:
        values = {"representation": np.zeros((n, 256), np.float32), "target": np.zeros((n, *spec.shape), np.uint8)}
        writer.add(rows, values)
    train = Cache(info, [tmp_path / "shard.arrow"]).training(("representation",))
    indices, rng = np.arange(0, n, n // 128), BatchRng(0, 128)
    train.fetch(indices, rng)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        train.fetch(indices, rng)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3
