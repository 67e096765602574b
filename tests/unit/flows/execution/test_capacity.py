"""`rcg explain --memory`: what trainings take of a GPU, whether they fit, and what to set where they do not."""

from pathlib import Path

import pytest
import yaml

from flows.commands.explain import gpu_lines
from flows.execution.capacity import Capacity, capacities
from flows.pipeline.params import Params
from flows.settings import WorkerSettings

PRESETS = Path(__file__).parents[4] / "presets"
ALL = ("collect", "encoder", "rdm", "pixels", "guide", "upsampler")


def of(preset: str, stages: tuple[str, ...] = ALL, **settings: object) -> dict[str, Capacity]:
    params = Params.model_validate(yaml.safe_load((PRESETS / f"{preset}.yaml").read_text()))
    return capacities(params, WorkerSettings.model_validate(settings), stages)


def test_every_training_is_estimated_and_nothing_else() -> None:
    found = of("digits-guided")
    assert list(found) == ["encoder", "rdm", "pixels", "guide"]
    assert all(one.estimate is not None and one.fits is None and one.fix() is None for one in found.values())
    rdm = found["rdm"].estimate
    assert rdm is not None
    assert rdm.optimizer == 2 * rdm.gradients
    assert rdm.averages == rdm.weights
    assert rdm.rows == 128
    guide = found["guide"].estimate
    assert guide is not None
    assert guide.averages == 0


@pytest.mark.parametrize(
    ("gb", "settings", "fix"),
    [
        (24, {}, None),
        (0.801, {}, "set RCG_MICRO_BATCH=8"),
        (0.8003, {}, "set RCG_MICRO_BATCH=1"),
        (0.8002, {}, "set RCG_RECOMPUTE=true"),
        (0.8002, {"recompute": True, "micro_batch": 1}, "take larger GPUs, or a smaller model"),
        (0.8001, {}, "set RCG_SHARD=true and RCG_WORKERS=3 or more"),
        (0.8001, {"shard": True}, "set RCG_WORKERS=3 or more"),
    ],
)
def test_what_to_set_where_it_does_not_fit(gb: float, settings: dict[str, object], fix: str | None) -> None:
    capacity = of("smoke", ("encoder",), gpu_memory_gb=gb, **settings)["encoder"]
    assert (capacity.fits, capacity.fix()) == (fix is None, fix)
    last = gpu_lines(capacity)[-1]
    assert last == (f"    fits a GPU of {gb:g} GB" if fix is None else f"    will not fit a GPU of {gb:g} GB: {fix}")


def test_what_a_finished_stage_decides_is_not_guessed() -> None:
    capacity = of("digits-text", ("rdm",), gpu_memory_gb=24)["rdm"]
    assert capacity.fits is None
    assert gpu_lines(capacity) == [
        "    what it takes of a GPU is not known before the stages above it: the cache has no field text"
    ]
