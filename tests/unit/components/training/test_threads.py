from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from components.base import Batch
from components.encoders.config import ContrastiveConfig, MoCoV3Config
from components.encoders.contrastive import MoCoV3Trainer
from components.rng import BatchRng
from components.training import threads
from components.training.config import TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import train
from components.training.threads import fitting_threads, step_flops
from components.training.throughput import work_of_example
from tests.support import toys

CONFIG = TrainConfig.model_validate(TrainConfig.tiny().model_dump() | {"steps": 3, "batch_size": 5})
FLOPS_OF_A_ROW = 3 * 2 * (6 * 16 + 16 * 6)
"""Two linear layers, multiply and add, forward and twice that backward."""


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def trainable() -> GeneratorTrainable[toys.ToyGenerator]:
    return GeneratorTrainable(toys.ToyGenerator(), None)


def chosen(folder: Path, **changes: object) -> int:
    worker = replace(toys.worker(folder), **({"fit_threads": True} | changes))
    with fitting_threads(5 * FLOPS_OF_A_ROW, worker) as n:
        assert torch.get_num_threads() == n
    assert torch.get_num_threads() == 4
    return n


@pytest.mark.parametrize(("world_size", "rows"), [(1, 5), (2, 3), (5, 1)])
def test_work_of_a_step_is_that_of_the_largest_share(tmp_path: Path, world_size: int, rows: int) -> None:
    worker = toys.worker(tmp_path, world_size=world_size)
    work = work_of_example(trainable(), toys.fetch, toys.N_EXAMPLES, CONFIG)
    assert step_flops(work, CONFIG, worker) == rows * FLOPS_OF_A_ROW


@pytest.mark.parametrize(("per_thread", "n"), [(16e9, 1), (5 * FLOPS_OF_A_ROW, 1), (2 * FLOPS_OF_A_ROW, 2), (1, 4)])
def test_as_many_threads_as_the_work_keeps_busy_and_no_more_than_there_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_thread: float, n: int
) -> None:
    monkeypatch.setattr(threads, "FLOPS_PER_THREAD", per_thread)
    assert chosen(tmp_path) == n


def test_where_the_number_is_given_it_stays(tmp_path: Path) -> None:
    assert chosen(tmp_path, fit_threads=False) == 4
    assert chosen(tmp_path, device=torch.device("meta")) == 4


def test_threads_come_back_after_an_error(tmp_path: Path) -> None:
    def fetch(_indices: np.ndarray, _rng: BatchRng) -> Batch:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(trainable(), fetch, 10, CONFIG, replace(toys.worker(tmp_path), fit_threads=True))
    assert torch.get_num_threads() == 4


def test_training_has_the_bits_of_one_on_that_many_threads(tmp_path: Path) -> None:
    fitted = trainable()
    train(fitted, toys.fetch, toys.N_EXAMPLES, CONFIG, replace(toys.worker(tmp_path), fit_threads=True))
    torch.set_num_threads(1)
    plain = trainable()
    train(plain, toys.fetch, toys.N_EXAMPLES, CONFIG, toys.worker(tmp_path))
    assert bits(fitted) == bits(plain)


def test_counting_changes_no_statistics_and_no_modes() -> None:
    model = MoCoV3Trainer(MoCoV3Config.tiny(), ContrastiveConfig.tiny()).train()
    model.momentum_encoder.eval()
    before, modes = bits(model), [part.training for part in model.modules()]

    def fetch(indices: np.ndarray, _rng: BatchRng) -> Batch:
        return {"target": torch.rand(len(indices), 3, model.model.input_px, model.model.input_px)}

    assert work_of_example(model, fetch, 10, CONFIG).step > 1000
    assert all(p.grad is None for p in model.parameters())
    assert bits(model) == before
    assert [part.training for part in model.modules()] == modes


def bits(module: nn.Module) -> list[bytes]:
    tensors: list[Tensor] = list(module.state_dict().values())
    return [tensor.numpy().tobytes() for tensor in tensors]
