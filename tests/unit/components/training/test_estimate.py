"""What a training is said to take, against what torch's own profiler sees it take at a small size."""

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from components.base import Batch
from components.generators.config import GeneratorData
from components.pixels.dit import DitConfig
from components.target import TargetSpec
from components.training.config import EmaConfig, TrainConfig
from components.training.estimate import Estimate, How, estimate
from components.training.generator import GeneratorTrainable
from components.training.parallel import recomputing
from components.training.step import Stepper
from tests.support import toys

PIXELS = TargetSpec(space="pixels", shape=(3, 8, 8), dtype="uint8", n_codes=None, image_px=8)
CONFIG = TrainConfig.tiny().model_copy(update={"batch_size": 64})
ROWS = CONFIG.batch_size
WHOLE = How()


def build() -> GeneratorTrainable[torch.nn.Module]:
    model = DitConfig.tiny().model_copy(update={"width": 64, "depth": 4, "heads": 4})
    return GeneratorTrainable(model.build(GeneratorData(target=PIXELS, dim=6, classes=None)), EmaConfig.tiny())


@functools.cache
def estimated(how: How) -> Estimate:
    """In fp32; made once, for several tests ask for the same."""
    return estimate(build, batch, CONFIG, how, bf16=False)


def batch(n: int) -> Batch:
    return {"target": torch.zeros(n, 3, 8, 8, dtype=torch.uint8), "representation": torch.zeros(n, 6)}


@contextmanager
def peak_bytes() -> Iterator[list[int]]:
    """The most bytes that torch's allocator has beyond what it had, appended at the end."""
    found: list[int] = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        yield found
    assert seen.profiler is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    found.append(peak)


def real(how: How, folder: Path) -> int:
    """Bytes of all that is there, and the most that a second step has beside it."""
    trainable = build()
    worker = dataclasses.replace(toys.worker(folder), micro_batch=how.micro_batch, recompute=how.recompute)
    stepper = Stepper(trainable.train(), CONFIG, worker)
    with recomputing(trainable, worker):
        stepper(0, batch(ROWS))
        for parameter in trainable.parameters():
            parameter.grad = None
        with peak_bytes() as found:
            stepper(1, batch(ROWS))
    return found[0] + sum(tensor.numel() * tensor.element_size() for tensor in stepper.tensors().values())


@pytest.mark.parametrize("how", [WHOLE, How(micro_batch=16), How(recompute=True)], ids=["whole", "parts", "recompute"])
def test_memory_is_what_a_real_step_takes(how: How, tmp_path: Path) -> None:
    found = estimated(how)
    assert found.total == pytest.approx(real(how, tmp_path), rel=0.05)


def test_what_a_device_holds_by_kind() -> None:
    found = estimated(WHOLE)
    trainable = build()
    generator = sum(p.numel() for p in trainable.generator.parameters() if p.requires_grad)
    assert found.gradients == 4 * generator
    assert found.optimizer == 8 * generator
    assert found.averages == found.weights
    assert found.rows == ROWS
    assert found.fixed + found.activations == found.total


def test_settings_that_spare_memory_do() -> None:
    whole, parts, again = (estimated(how) for how in (WHOLE, How(micro_batch=16), How(recompute=True)))
    low = estimate(build, batch, CONFIG, WHOLE, bf16=True)
    assert parts.activations < 0.4 * whole.activations
    assert again.activations < 0.5 * whole.activations
    assert low.activations < 0.8 * whole.activations
    assert {one.flops for one in (parts, again, low)} == {whole.flops}
    sharded = estimated(How(workers=4, shard=True))
    assert sharded.weights == whole.weights // 4
    assert sharded.rows == ROWS // 4


def test_rows_that_fit_are_read_off_it() -> None:
    found = estimated(WHOLE)
    assert found.rows_that_fit(found.total) == ROWS
    assert found.rows_that_fit(found.fixed + found.activations / 2) == ROWS // 2
    assert found.rows_that_fit(found.fixed - 1) == 0
