from pathlib import Path

import numpy as np
import pytest
import torch

from components.training.config import TrainConfig
from components.training.order import Batches, global_indices, noise_rng
from tests.support import toys


def test_an_epoch_is_a_permutation_and_epochs_differ() -> None:
    steps = [global_indices(3, s, 5, 10) for s in range(6)]
    epochs = [np.concatenate(steps[i : i + 2]) for i in (0, 2, 4)]
    assert all(sorted(e.tolist()) == list(range(10)) for e in epochs)
    assert len({tuple(e.tolist()) for e in epochs}) == 3


def test_a_batch_spans_epochs_without_losing_an_example() -> None:
    seen = np.concatenate([global_indices(0, s, 4, 6) for s in range(3)])
    assert sorted(seen[:6].tolist()) == sorted(seen[6:].tolist()) == list(range(6))


def test_a_batch_may_be_larger_than_the_collection() -> None:
    seen = global_indices(0, 0, 7, 3)
    assert sorted(seen[:3].tolist()) == sorted(seen[3:6].tolist()) == [0, 1, 2]


def test_order_depends_on_the_seed() -> None:
    assert global_indices(0, 0, 8, 100).tolist() != global_indices(1, 0, 8, 100).tolist()


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_ranks_batches_are_the_rows_of_the_whole_one(tmp_path: Path, world_size: int) -> None:
    config = TrainConfig.tiny().model_copy(update={"batch_size": 7})
    whole = Batches(toys.fetch, toys.N_EXAMPLES, config, toys.worker(tmp_path)).at(2)["representation"]
    ranks = [toys.worker(tmp_path, rank=r, world_size=world_size) for r in range(world_size)]
    parts = [Batches(toys.fetch, toys.N_EXAMPLES, config, rank).at(2)["representation"] for rank in ranks]
    assert torch.equal(torch.cat(parts), whole)
    noise = torch.cat([noise_rng(config, rank, 2, 0).normal(3) for rank in ranks])
    assert torch.equal(noise, noise_rng(config, toys.worker(tmp_path), 2, 0).normal(3))


def test_prefetching_yields_each_step_once_from_anywhere(tmp_path: Path) -> None:
    batches = Batches(toys.fetch, toys.N_EXAMPLES, TrainConfig.tiny(), toys.worker(tmp_path))
    got = dict(batches.between(1, 4))
    assert list(got) == [1, 2, 3]
    assert all(torch.equal(got[s]["representation"], batches.at(s)["representation"]) for s in got)
    assert list(batches.between(4, 4)) == []


def test_an_error_while_fetching_reaches_the_caller(tmp_path: Path) -> None:
    def broken(indices: np.ndarray, rng: object) -> dict[str, torch.Tensor]:
        raise OSError("gone")

    batches = Batches(broken, 10, TrainConfig.tiny(), toys.worker(tmp_path))
    with pytest.raises(OSError, match="gone"):
        list(batches.between(0, 2))
