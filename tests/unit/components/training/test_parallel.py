import dataclasses
from pathlib import Path

import pytest
import torch

from components.training.config import TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import train
from components.training.parallel import parts_of_rows
from components.training.worker import Worker
from tests.support import toys

CONFIG = TrainConfig.tiny().model_copy(update={"steps": 6, "batch_size": 11, "clip_norm": 0.5})


class Counting(toys.ToyGenerator):
    """Remembers how many rows each pass had."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def loss(self, batch: dict[str, torch.Tensor], rng: toys.BatchRng) -> torch.Tensor:  # type: ignore[override]
        self.sizes.append(len(batch["representation"]))
        return super().loss(batch, rng)


def fit(worker: Worker) -> tuple[Counting, list[dict[str, float]]]:
    model = Counting()
    return model, train(GeneratorTrainable(model, None), toys.fetch, toys.N_EXAMPLES, CONFIG, worker).curve


def in_parts(rank: int, world_size: int, folder: Path) -> tuple[list[torch.Tensor], list[dict[str, float]], list[int]]:
    worker = dataclasses.replace(toys.worker(folder, rank=rank, world_size=world_size), micro_batch=4)
    model, curve = fit(worker)
    return [p.detach() for p in model.parameters()], curve, model.sizes


def test_a_batch_in_parts_trains_as_the_whole_one(tmp_path: Path) -> None:
    whole, expected = fit(toys.worker(tmp_path))
    weights, curve, sizes = in_parts(0, 1, tmp_path)
    assert sizes == [3, 4, 4] * CONFIG.steps
    assert whole.sizes == [11] * CONFIG.steps
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
