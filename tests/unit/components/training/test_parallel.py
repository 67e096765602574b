import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from components.base import Batch
from components.errors import RetryableError
from components.generators.config import GeneratorData
from components.guides.config import MlpGuideConfig
from components.guides.training import GuideTrainable
from components.nn.vit import seeded_init
from components.pixels.dit import DitConfig
from components.rng import BatchRng
from components.store.local import LocalStore
from components.target import TargetSpec
from components.training.checkpoint import CheckpointDir, NoCheckpoints
from components.training.config import EmaConfig, TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import Preview, train
from components.training.parallel import parts_of_rows
from components.training.worker import Worker
from tests.support import toys

CONFIG = TrainConfig.tiny().model_copy(update={"steps": 6, "batch_size": 11, "clip_norm": 0.5})


class Counting(toys.ToyGenerator):
    """Remembers how many rows each pass had."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def loss(self, batch: dict[str, torch.Tensor], rng: BatchRng) -> torch.Tensor:  # type: ignore[override]
        self.sizes.append(len(batch["representation"]))
        return super().loss(batch, rng)


def fit(worker: Worker) -> tuple[Counting, list[dict[str, float]]]:
    model = Counting()
    return model, train(GeneratorTrainable(model, None), toys.fetch, toys.N_EXAMPLES, CONFIG, worker).curve


def in_parts(rank: int, world_size: int, folder: Path) -> tuple[list[torch.Tensor], list[dict[str, float]], list[int]]:
    worker = dataclasses.replace(toys.worker(folder, rank=rank, world_size=world_size), micro_batch=4)
    model, curve = fit(worker)
    return [p.detach() for p in model.parameters()], curve, model.sizes[1:]  # the first counts the work


def test_a_batch_in_parts_trains_as_the_whole_one(tmp_path: Path) -> None:
    whole, expected = fit(toys.worker(tmp_path))
    weights, curve, sizes = in_parts(0, 1, tmp_path)
    assert sizes == [3, 4, 4] * CONFIG.steps
    assert whole.sizes == [2] + [11] * CONFIG.steps
    for mine, theirs in zip(weights, whole.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)
    for mine_at, theirs_at in zip(curve, expected, strict=True):
        assert mine_at == pytest.approx(theirs_at, abs=1e-6)


@pytest.mark.processes
def test_two_ranks_in_parts_train_like_one(tmp_path: Path) -> None:
    from tests.support.ranks import run_ranks

    whole, expected = fit(toys.worker(tmp_path))
    first, second = run_ranks(2, in_parts, tmp_path)
    assert (first[2], second[2]) == ([2, 3] * CONFIG.steps, [3, 3] * CONFIG.steps)
    for mine, other, theirs in zip(first[0], second[0], whole.parameters(), strict=True):
        assert torch.equal(mine, other)
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    assert first[1][-1] == pytest.approx(expected[-1], abs=1e-5)


def test_every_rank_has_as_many_parts_and_none_is_empty(tmp_path: Path) -> None:
    model = GeneratorTrainable(toys.ToyGenerator(), None)
    for micro_batch in (1, 2, 3, 100):
        ranks = [
            dataclasses.replace(toys.worker(tmp_path, rank=rank, world_size=4), micro_batch=micro_batch)
            for rank in range(4)
        ]
        parts = [parts_of_rows(model, CONFIG, rank) for rank in ranks]
        assert len({len(part) for part in parts}) == 1
        assert all(piece.stop > piece.start for part in parts for piece in part)
        assert [part[-1].stop for part in parts] == [2, 3, 3, 3]


def test_a_loss_that_needs_its_rows_together_gets_them(tmp_path: Path) -> None:
    class Together(GeneratorTrainable[toys.ToyGenerator]):
        by_row = False

    worker = dataclasses.replace(toys.worker(tmp_path), micro_batch=2)
    assert parts_of_rows(Together(toys.ToyGenerator(), None), CONFIG, worker) == [slice(0, 11)]


def fit_guide(worker: Worker) -> list[torch.Tensor]:
    """Weights of a guide and its twin, each by its optimizer, trained on classes of representations."""
    with seeded_init(0):
        guide = MlpGuideConfig.tiny().build(GeneratorData(target=PIXELS, dim=6, classes=("a", "b")))
    labels = torch.arange(toys.N_EXAMPLES) % 2
    guide.frequencies.fill_(0.5)
    trainable = GuideTrainable(guide)

    def rows(indices: np.ndarray, _rng: BatchRng) -> Batch:
        return {"representation": REPRESENTATIONS[indices], "class": labels[indices]}

    train(trainable, rows, toys.N_EXAMPLES, CONFIG, worker)
    return [p.detach() for p in trainable.parameters()]


def sharded_guide(rank: int, world_size: int, folder: Path) -> list[torch.Tensor]:
    return fit_guide(dataclasses.replace(toys.worker(folder, rank=rank, world_size=world_size), shard=True))


@pytest.mark.processes
def test_a_guide_and_its_twin_train_in_parts_and_in_shards(tmp_path: Path) -> None:
    from tests.support.ranks import run_ranks

    whole = fit_guide(toys.worker(tmp_path))
    for other in (
        fit_guide(dataclasses.replace(toys.worker(tmp_path), micro_batch=2)),
        *run_ranks(2, sharded_guide, tmp_path),
    ):
        for mine, theirs in zip(other, whole, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


PIXELS = TargetSpec(space="pixels", shape=(3, 8, 8), dtype="uint8", n_codes=None, image_px=8)
PICTURES = torch.randint(256, (toys.N_EXAMPLES, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
REPRESENTATIONS = torch.randn(toys.N_EXAMPLES, 6, generator=torch.Generator().manual_seed(1))


LONGER = CONFIG.model_copy(update={"steps": 10})


def fit_dit(worker: Worker) -> tuple[list[torch.Tensor], list[float]]:
    """Averaged weights of a trained DiT, and what a sum of them was at each preview.

    Without qkv's bias: the keys' has a gradient of rounding errors alone, which Adam makes steps of full size of.
    """
    with seeded_init(0):
        generator = DitConfig.tiny().build(GeneratorData(target=PIXELS, dim=6, classes=None))
    weights = torch.Generator().manual_seed(0)
    for parameter in generator.parameters():  # fresh ones are zero in places
        nn.init.normal_(parameter, std=0.2, generator=weights)
    trainable = GeneratorTrainable(generator, EmaConfig.tiny())
    seen: list[float] = []

    def draw(_step: int) -> dict[str, np.ndarray]:
        seen.append(sum(float(p.sum()) for p in trainable.result.parameters()))
        return {}

    def rows(indices: np.ndarray, _rng: BatchRng) -> Batch:
        return {"target": PICTURES[indices], "representation": REPRESENTATIONS[indices]}

    train(trainable, rows, toys.N_EXAMPLES, LONGER, worker, preview=Preview(5, draw))
    named = trainable.result.named_parameters()
    return [p.detach() for name, p in named if not name.endswith("qkv.bias")], seen


def sharded(folder: Path, attempt: int, rank: int, world_size: int) -> Worker:
    store = LocalStore(folder / "store")
    directory = CheckpointDir(store, "runs/f", attempt, 3, folder, rank=rank, world_size=world_size)
    plain = toys.worker(folder, rank=rank, world_size=world_size, checkpoints=directory)
    return dataclasses.replace(plain, shard=True, recompute=True, micro_batch=3)


def stop_at_8(rank: int, world_size: int, folder: Path) -> None:
    """Leave a checkpoint of step 8 there."""
    calls = itertools.count(1)
    every = 8 if world_size == 1 else 1  # several ranks ask each other at every 8th step
    worker = sharded(folder, 1, rank, world_size)
    with pytest.raises(RetryableError, match="step 8"):
        fit_dit(dataclasses.replace(worker, stopping=lambda: next(calls) == every))


def go_on(rank: int, world_size: int, folder: Path) -> tuple[list[torch.Tensor], list[float]]:
    return fit_dit(sharded(folder, 2, rank, world_size))


def in_shards(rank: int, world_size: int, folder: Path, other: Path) -> list[tuple[list[torch.Tensor], list[float]]]:
    """Trained at once; stopped and trained on; begun by another number of ranks."""
    at_once = fit_dit(dataclasses.replace(sharded(folder, 1, rank, world_size), checkpoints=NoCheckpoints()))
    stop_at_8(rank, world_size, folder)
    return [at_once, go_on(rank, world_size, folder), go_on(rank, world_size, other)]


@pytest.mark.processes
def test_two_ranks_with_shards_train_like_one_and_resume_each_other(tmp_path: Path) -> None:
    from tests.support.ranks import run_ranks

    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    for folder in (one, two, other):
        folder.mkdir()
    expected, seen = fit_dit(toys.worker(tmp_path))
    stop_at_8(0, 1, one)
    first, second = run_ranks(2, in_shards, two, one)
    run_ranks(2, stop_at_8, other)
    sizes = [path.stat().st_size for path in (other / "store").rglob("*.safetensors")]
    assert len(sizes) == 2
    assert max(sizes) < 0.6 * sum(sizes), "each rank saves its shard"
    begun_by_two = go_on(0, 1, other)
    for weights, _ in (*first, begun_by_two):
        for mine, theirs in zip(weights, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    for (mine_at_once, _), (theirs_at_once, _) in zip(first, second, strict=True):
        assert all(map(torch.equal, mine_at_once, theirs_at_once))
    assert all(map(torch.equal, first[0][0], first[1][0])), "stopped and trained on: the same bits"
    assert first[0][1] == pytest.approx(seen, abs=1e-3)
    assert second[0][1] == []
    assert [len(told) for _, told in (first[1], first[2], begun_by_two)] == [1, 1, 1], "it began anew"
