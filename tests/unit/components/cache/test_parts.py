"""Reading a large cache by its parts: the rows of the whole one, few shards at a time, resumed anywhere."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from components.cache.config import Reading
from components.cache.parts import AHEAD, FETCHERS, SPARE, STRIDE, PartSplit
from components.cache.reader import CacheInfo, cache_fields, open_cache
from components.cache.shards import ShardWriter, shard_name
from components.errors import ArtifactError
from components.rng import BatchRng
from components.store.local import LocalStore
from components.training.checkpoint import CheckpointDir
from components.training.config import TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import Preview, train
from components.training.order import Batches
from tests.support import toys
from tests.support.caches import make_cache
from tests.support.folders import SPEC, FolderArtifact
from tests.support.generators import PIXEL

DIM, SIZE = 6, 10
READING = Reading(lanes=2, window=2)
CONFIG = TrainConfig.tiny().model_copy(update={"steps": 70, "batch_size": 6, "log_every": 10})


class Remote(FolderArtifact):
    """Its files are fetched into a folder; a damaged one is refused by name, as StoredArtifact does."""

    def __init__(self, root: Path, scratch: Path) -> None:
        super().__init__(root)
        self.scratch, self.damaged = scratch, ""

    def path(self, name: str) -> Path:
        if name == self.damaged:
            raise ArtifactError(f"{name} does not match its digest")
        path = self.scratch / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.root / name, path)
        return path

    def release(self, name: str) -> None:
        (self.scratch / name).unlink()

    def fetched(self) -> int:
        return len(list((self.scratch / "shards").glob("*")))


def _large(tmp_path: Path, n_shards: int = 40) -> Remote:
    """SIZE pictures a shard, two views each but of the last picture, which is held out. It lists its shards."""
    out, fields = FolderArtifact(tmp_path / "encode"), cache_fields(DIM, SPEC, None)
    chunks = [f"c{i:05d}" for i in range(n_shards)]
    for i, chunk in enumerate(chunks):
        with out.file(shard_name(chunk)) as path, ShardWriter(path, fields) as shard:
            for j in range(SIZE):
                split, n = ("val", 1) if j == SIZE - 1 else ("train", 2)
                row = {"key": f"{i}-{j}", "sha256": "0" * 64, "split": split, "caption": None, "class": None}
                z = np.sin(np.arange(1, DIM + 1) * (i * SIZE + j + 1) + np.arange(n)[:, None]).astype(np.float32)
                target = np.zeros((n, *SPEC.shape), np.uint8)
                shard.add([row | {"view": view} for view in range(n)], {"representation": z, "target": target})
    info = CacheInfo(fields=fields, target=SPEC, n_views=2, counts={}, chunks=chunks)
    out.write_json("cache.json", info.model_dump(mode="json"))
    counts = open_cache(out, READING).training().held.counts  # type: ignore[attr-defined]
    out.write_json("cache.json", info.model_copy(update={"shards": counts}).model_dump(mode="json"))
    return Remote(tmp_path / "encode", tmp_path / "scratch")


def _training(artifact: FolderArtifact) -> PartSplit:
    split = open_cache(artifact, READING).training(("representation",))
    assert isinstance(split, PartSplit)
    return split


def test_fields_of_every_kind_are_those_of_the_whole_cache(tmp_path: Path) -> None:
    artifact = make_cache(tmp_path, PIXEL)
    whole, parts = open_cache(artifact), open_cache(artifact, READING)
    for some in ((), ("text",), ("tokens", "count")):
        for a, b in (
            (whole.training().having(some), parts.training().having(some)),
            (whole.held_out("val").having(some), parts.held_out("val").having(some)),
        ):
            every = np.arange(len(a))[::-1].copy()
            assert len(a) == len(b)
            assert a.keys(every) == b.keys(every)
            assert a.captions(every) == b.captions(every)
            for left, right in (
                (a.rows(every), b.rows(every)),
                (a.fetch(every, BatchRng(1, len(every))), b.fetch(every, BatchRng(1, len(every)))),
                ({"z": a.field("representation", every)}, {"z": b.field("representation", every)}),
            ):
                assert left.keys() == right.keys()
                assert all(torch.equal(left[name], right[name]) for name in left)
    assert parts.training().rows([])["target"].shape == whole.training().rows([])["target"].shape


def test_a_cache_that_lists_its_shards_is_read_by_window_unless_params_say_whole(tmp_path: Path) -> None:
    artifact = _large(tmp_path, 3)
    assert isinstance(open_cache(artifact).training(), PartSplit)
    assert open_cache(artifact, "whole").training().examples == 3 * (SIZE - 1)


def test_few_shards_are_held(tmp_path: Path) -> None:
    artifact = _large(tmp_path, 80)
    training, worker = _training(artifact), toys.worker(tmp_path)
    batches = Batches(training.fetch, training, CONFIG, worker)
    buckets = (AHEAD + STRIDE) * CONFIG.batch_size // (SIZE - 1) + 2 * READING.lanes
    bound = buckets + READING.lanes * READING.window + SPARE
    for _ in batches.between(0, len(training) // CONFIG.batch_size):
        assert artifact.fetched() <= bound + FETCHERS
    assert training.held.most <= bound < 50


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_read_the_rows_of_one_worker(tmp_path: Path, world_size: int) -> None:
    artifact = _large(tmp_path)

    def at(step: int, rank: int, n: int) -> torch.Tensor:
        training = _training(artifact)
        worker = toys.worker(tmp_path, rank=rank, world_size=n)
        return Batches(training.fetch, training, CONFIG, worker).at(step)["representation"]

    for step in (0, 61):  # the second one is of two epochs
        parts = [at(step, rank, world_size) for rank in range(world_size)]
        assert torch.equal(torch.cat(parts), at(step, 0, 1))


class KilledError(Exception):
    pass


def test_killed_in_the_middle_of_an_epoch_it_resumes_with_the_same_bits(tmp_path: Path) -> None:
    artifact = _large(tmp_path)
    store = LocalStore(tmp_path / "store")

    def fit(attempt: int, kill_at: int | None = None) -> bytes:
        def draw(step: int) -> dict[str, np.ndarray]:
            if step == kill_at:
                raise KilledError
            return {}

        training, model = _training(artifact), GeneratorTrainable(toys.ToyGenerator(), None)
        checkpoints = CheckpointDir(store, f"runs/rdm/{min(attempt, 1)}", attempt, 3, tmp_path)
        worker = toys.worker(tmp_path, checkpoints=checkpoints, checkpoint_every=9)
        train(model, training.fetch, training.examples, CONFIG, worker, preview=Preview(1, draw))
        return b"".join(p.detach().numpy().tobytes() for p in model.parameters())

    with pytest.raises(KilledError):
        fit(1, kill_at=31)
    assert fit(2) == fit(0)


def test_a_damaged_shard_ends_the_training_with_its_name(tmp_path: Path) -> None:
    artifact = _large(tmp_path)
    training = _training(artifact)
    artifact.damaged = "shards/c00017.arrow"
    batches = Batches(training.fetch, training, CONFIG, toys.worker(tmp_path))
    with pytest.raises(ArtifactError, match=r"shards/c00017\.arrow"):
        list(batches.between(0, 60))
