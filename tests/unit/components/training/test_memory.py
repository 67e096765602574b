"""A step that runs out of memory: asked for what no machine has, torch raises its own error."""

import dataclasses
from pathlib import Path

import pytest
import torch

from components.errors import ConfigError
from components.rng import BatchRng
from components.training.config import TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import train
from components.training.memory import is_out_of_memory, most_rows
from components.training.worker import Worker
from tests.support import toys

CONFIG = TrainConfig.tiny().model_copy(update={"batch_size": 12})
TOO_MUCH = 1 << 60


class Hungry(toys.ToyGenerator):
    """Asks for an exabyte as soon as a pass has more than `most` rows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.seen = most, list[int]()

    def loss(self, batch: dict[str, torch.Tensor], rng: BatchRng) -> torch.Tensor:  # type: ignore[override]
        self.seen.append(len(batch["representation"]))
        if self.seen[-1] > self.most:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return super().loss(batch, rng)


def fit(model: Hungry, worker: Worker) -> None:
    train(GeneratorTrainable(model, None), toys.fetch, toys.N_EXAMPLES, CONFIG, worker)


def test_the_error_names_a_micro_batch_that_was_tried_and_trains(tmp_path: Path) -> None:
    model = Hungry(4)
    with pytest.raises(ConfigError, match="more memory") as raised:
        fit(model, toys.worker(tmp_path))
    assert "12 row(s)" in str(raised.value)
    assert raised.value.fix == "set RCG_MICRO_BATCH=3: passes of 3 row(s) were tried and fit"
    assert model.seen == [2, 12, 6, 3], "its work is counted on two rows"
    assert raised.value.__context__ is None, "its frames would hold the activations"
    fit(Hungry(4), dataclasses.replace(toys.worker(tmp_path), micro_batch=3))


def test_the_rows_of_a_micro_batch_are_halved_further(tmp_path: Path) -> None:
    model = Hungry(1)
    with pytest.raises(ConfigError, match="RCG_MICRO_BATCH=1:"):
        fit(model, dataclasses.replace(toys.worker(tmp_path), micro_batch=4))
    assert model.seen == [2, 4, 2, 1]


def test_where_no_row_fits_it_says_what_else_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="set RCG_RECOMPUTE=true, or set RCG_SHARD=true with more workers, or train a"
    ):
        fit(Hungry(0), toys.worker(tmp_path))
    with pytest.raises(ConfigError) as raised:
        fit(Hungry(0), dataclasses.replace(toys.worker(tmp_path), recompute=True, shard=True))
    assert raised.value.fix == "train a smaller model"


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    class Broken(toys.ToyGenerator):
        def loss(self, batch: dict[str, torch.Tensor], rng: BatchRng) -> torch.Tensor:  # type: ignore[override]  # noqa: ARG002
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(GeneratorTrainable(Broken(), None), toys.fetch, toys.N_EXAMPLES, CONFIG, toys.worker(tmp_path))


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_out_of_memory(OSError("Cannot allocate memory"))
    assert most_rows(print, 1) is None
