"""What a training says of its speed: counted by hand, and waits that a slow fetch makes."""

import logging
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from components.base import Batch
from components.encoders.config import ContrastiveConfig, MoCoV3Config
from components.encoders.contrastive import MoCoV3Trainer
from components.rng import BatchRng
from components.training import throughput
from components.training.config import TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import train
from components.training.report import Report
from components.training.throughput import peak_flops, peak_of, work_of_example
from tests.support import toys

CONFIG = TrainConfig.tiny().model_copy(update={"steps": 6, "log_every": 3})
LAYER = 2 * 6 * 16


def test_the_work_of_an_example_is_what_its_matrices_take() -> None:
    work = work_of_example(GeneratorTrainable(toys.ToyGenerator(), None), toys.fetch, toys.N_EXAMPLES, CONFIG)
    assert work.forward == 2 * LAYER
    assert work.step == 3 * LAYER + 2 * LAYER, "nothing asks for the gradient of the input"


def test_what_takes_no_gradient_is_counted_once() -> None:
    model = MoCoV3Trainer(MoCoV3Config.tiny(), ContrastiveConfig.tiny())

    def fetch(indices: np.ndarray, rng: BatchRng) -> Batch:
        return {"target": rng.uniform(3, model.model.input_px, model.model.input_px)}

    work = work_of_example(model, fetch, 10, CONFIG)
    assert 1.8 * work.forward < work.step < 2.3 * work.forward, "the momentum encoder is half of the forward pass"


def test_peaks_go_by_words_of_the_name() -> None:
    assert peak_of("NVIDIA A100-SXM4-80GB", "bf16") == 312e12
    assert peak_of("NVIDIA H100 80GB HBM3", "fp32") == 67e12
    assert peak_of("NVIDIA L40S", "bf16") == 362e12
    assert peak_of("NVIDIA A10G", "bf16") is None
    assert peak_flops(torch.device("cpu"), "bf16") is None


def slow(indices: np.ndarray, rng: BatchRng) -> Batch:
    time.sleep(0.03)
    return toys.fetch(indices, rng)


def metrics_of(fetch: throughput.Fetch, folder: Path) -> list[dict[str, float]]:
    told: list[Report] = []
    model = GeneratorTrainable(toys.ToyGenerator(), None)
    train(model, fetch, toys.N_EXAMPLES, CONFIG, toys.worker(folder, report=told.append))
    return [dict(report.metrics) for report in told]


def test_a_training_tells_its_rates_and_its_waits_and_says_once_that_it_waited(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = metrics_of(slow, tmp_path)
    assert caplog.messages == [], "too short to tell"
    monkeypatch.setattr(throughput, "LEAST_S", 0.1)
    with caplog.at_level(logging.WARNING):
        metrics_of(slow, tmp_path)
    assert len(caplog.messages) == 1
    assert "waited for data" in caplog.messages[0]
    assert "mfu" not in second, "nothing is known of this device"
    for told in (first, second):
        assert 0.3 < told["data_wait"] <= 1
        assert told["flops_per_s"] == pytest.approx(5 * LAYER * told["examples_per_s"])
        assert told["data_mb_per_s"] == pytest.approx(6 * 4 * told["examples_per_s"] / 1e6)
