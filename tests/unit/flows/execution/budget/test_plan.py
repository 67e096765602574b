"""Minutes -> params: the time is kept, sizes follow from it, too little is refused, and what is written is valid."""

from dataclasses import replace

import pytest

from components.encoders.config import TimmConfig
from components.errors import ConfigError
from components.metrics.config import ReadyFeatures
from components.metrics.networks.config import TimmNetwork
from components.weights_file import WeightsFile
from flows.execution.budget.plan import MOST_MINUTES, gpu_minutes, least_minutes, minutes_for, needed, plan
from flows.execution.budget.recipe import SIZES, n_features, n_train, recipe, sizes
from flows.execution.budget.speeds import Speeds
from flows.execution.budget.survey import Labels, Survey
from flows.execution.budget.telling import outlook_lines, plan_lines, seen_lines, time_lines
from flows.pipeline.params import check_params
from flows.pipeline.table import pipeline

COLLECTION = Survey(
    n=3000,
    n_looked_at=256,
    side=64,
    smallest=64,
    largest=512,
    color=1.0,
    elongated=0.0,
    constant=0.0,
    unreadable=0.0,
    labels="none",
    n_classes=0,
    n_captioned=0,
    read_s=0.001,
)
MACHINE = Speeds(
    start_s=6.0,
    rdm_s=0.015,
    encoder_s={16: 0.3, 32: 0.3, 64: 0.4},
    look_s={16: 3e-4, 32: 3e-4, 64: 4e-4},
    pixels_s={16: 0.1, 32: 0.3, 64: 1.2},
    evaluate_s={16: 0.09, 32: 0.35, 64: 1.4},
    judge_s={16: 5e-4, 32: 2e-3, 64: 7e-3},
    pixels_flops={16: 0.7e10, 32: 2.3e10, 64: 1.2e11},
    busy=1.0,
    device="cpu",
    threads=2,
)


def _faster(by: float) -> Speeds:
    def each(seconds: object) -> dict[int, float]:
        assert isinstance(seconds, dict)
        return {size: s / by for size, s in seconds.items()}

    return replace(
        MACHINE,
        rdm_s=MACHINE.rdm_s / by,
        encoder_s=each(MACHINE.encoder_s),
        look_s=each(MACHINE.look_s),
        pixels_s=each(MACHINE.pixels_s),
        evaluate_s=each(MACHINE.evaluate_s),
        judge_s=each(MACHINE.judge_s),
    )


@pytest.mark.parametrize("minutes", [4, 10, 45, 90, 240])
def test_the_time_is_used_and_kept(minutes: int) -> None:
    found = plan(COLLECTION, MACHINE, minutes)
    assert 0.85 * 60 * minutes < found.total_s <= 60 * minutes
    assert set(found.seconds) == set(pipeline(found.params))
    trained = {stage: found.params[stage]["train"]["steps"] for stage in found.steps}
    assert trained == found.steps
    bare = found.seconds["pixels"] - found.steps["pixels"] * MACHINE.pixels_s[found.size]
    assert bare == pytest.approx(MACHINE.start_s, abs=60)  # previews and the loss on held-out pictures
    assert found.seconds["pixels"] > 0.35 * found.total_s


@pytest.mark.parametrize(("side", "expected"), [(28, (16, 28)), (48, (16, 32, 48)), (32, (16, 32)), (30, (16,))])
def test_pictures_of_one_size_may_keep_it(side: int, expected: tuple[int, ...]) -> None:
    alike = replace(COLLECTION, side=side, smallest=side, largest=side)
    assert sizes(alike) == expected
    assert sizes(replace(alike, largest=100)) == tuple(size for size in expected if size in SIZES)
    for size in expected:
        check_params(
            recipe(alike, size, dict.fromkeys(("encoder", "rdm", "pixels", "evaluate"), 100), n_views=1, n_samples=100),
            "params",
        )
    assert 0 <= needed(16) < needed(28) < needed(32) < needed(48) < needed(64)


def test_size_follows_from_the_pictures_that_the_painter_sees() -> None:
    chosen = [plan(COLLECTION, MACHINE, minutes) for minutes in (5, 20, 45, 90, 240, 480)]
    found = [one.size for one in chosen]
    assert found == sorted(found)
    assert set(found) == {16, 32, 64}
    assert all(one.seen >= needed(one.size) for one in chosen)
    for size in (32, 64):
        first = minutes_for(COLLECTION, MACHINE, size)
        assert first is not None
        assert plan(COLLECTION, MACHINE, first).size >= size
        assert plan(COLLECTION, MACHINE, first - 1).size < size
    assert plan(COLLECTION, _faster(20), 45).size == 64


def test_samples_are_guided_which_takes_two_evaluations_a_step() -> None:
    found = plan(COLLECTION, MACHINE, 45)
    how, (condition,) = found.params["sample"]["pixels"], found.params["pixels"]["model"]["conditions"]
    assert how["guidance"] > 0
    assert condition["drop_prob"] > 0  # the null is trained
    evaluation = MACHINE.pixels_s[found.size] / found.params["pixels"]["train"]["batch_size"] / 3
    planned = (found.seconds["sample"] - MACHINE.start_s) / found.n_samples
    assert planned == pytest.approx(2 * how["steps"] * evaluation, rel=0.05)


def test_a_ready_made_judge_is_not_trained_and_its_looks_are_planned() -> None:
    judge = TimmNetwork.tiny().model_dump(mode="json")
    brought = replace(COLLECTION, judge=judge)
    slow, fast = (
        plan(brought, replace(MACHINE, evaluate_s={}, judge_s=dict.fromkeys(SIZES, s)), 45) for s in (0.04, 0.01)
    )
    assert "evaluate" not in slow.steps
    assert slow.seconds["evaluate"] - fast.seconds["evaluate"] == pytest.approx(
        0.03 * (3000 + 1000 + 9 * 600), rel=0.01
    )
    assert slow.seen < fast.seen
    params = check_params(slow.params, "params")
    assert params.evaluate.train is None
    assert isinstance(params.evaluate.features, ReadyFeatures)
    assert params.evaluate.features.dim == n_features(COLLECTION)
    assert 0.85 * 45 * 60 < slow.total_s <= 45 * 60
    assert any("judged by test_resnet of weights.pth" in line for line in plan_lines(brought, MACHINE, slow))


def test_a_ready_made_encoder_leaves_its_time_to_the_painter() -> None:
    weights = WeightsFile(uri="e.safetensors", sha256="0" * 64)
    model = TimmConfig.tiny().model_copy(update={"weights": weights, "dim": 1280}).model_dump(mode="json")
    brought, looks = (
        replace(COLLECTION, encoder=model),
        replace(MACHINE, encoder_s={}, look_s=dict.fromkeys(SIZES, 0.01)),
    )
    found, trained = plan(brought, looks, 45), plan(COLLECTION, MACHINE, 45)
    params = check_params(found.params, "params")
    assert params.rdm is not None
    assert (params.encoder.train, params.encoder.model.reduce.dim, params.rdm.model.dim) == (None, 64, 64)
    assert "encoder" not in found.steps
    assert found.seen > trained.seen
    assert 0.85 * 45 * 60 < found.total_s <= 45 * 60
    assert "test_vit of e.safetensors, not trained; 64 axes of its 1280" in "\n".join(plan_lines(brought, looks, found))
    few = replace(brought, n=100)
    assert check_params(plan(few, looks, 10).params, "params").encoder.model.reduce.dim == n_train(few) // 4
    assert least_minutes(brought, looks, 16) < 45


def test_pictures_are_not_enlarged() -> None:
    assert sizes(COLLECTION) == (16, 32, 64)
    assert sizes(replace(COLLECTION, side=63)) == (16, 32)
    assert sizes(replace(COLLECTION, side=8)) == (16,)


def test_a_few_pictures_are_not_learned_by_heart_for_a_week() -> None:
    few = replace(COLLECTION, n=100)
    found = plan(few, _faster(1000), MOST_MINUTES)
    assert found.is_full
    assert found.seen <= 1500 * n_train(few)
    assert found.total_s < 60 * MOST_MINUTES / 10
    assert any("would not help" in line for line in outlook_lines(few, _faster(1000), found))


def test_too_few_minutes_are_refused_with_the_least_that_do() -> None:
    least = least_minutes(COLLECTION, MACHINE, 16)
    assert plan(COLLECTION, MACHINE, least).size == 16
    with pytest.raises(ConfigError, match=f"at least {least} minutes"):
        plan(COLLECTION, MACHINE, least - 1)
    many = replace(COLLECTION, n=1_000_000)
    with pytest.raises(ConfigError, match="too few to train and judge anything on 1000000 pictures"):
        plan(many, MACHINE, 45)


@pytest.mark.parametrize("minutes", [-45, 0, 366 * 24 * 60])
def test_no_budget_is_named(minutes: float) -> None:
    with pytest.raises(ConfigError, match=r"above 0, and at most 10080 \(a week\)"):
        plan(COLLECTION, MACHINE, minutes)


@pytest.mark.parametrize("n", [60, 300, 5000])
@pytest.mark.parametrize("color", [0.0, 1.0])
@pytest.mark.parametrize("labels", ["metadata", "folder", "none"])
@pytest.mark.parametrize("size", [16, 32, 64])
def test_params_are_valid(n: int, color: float, labels: Labels, size: int) -> None:
    survey = replace(COLLECTION, n=n, color=color, labels=labels)
    steps = {"encoder": 60, "rdm": 200, "pixels": 1, "evaluate": 60}
    params = check_params(recipe(survey, size, steps, n_views=2, n_samples=100), "params")
    assert params.codec.model.px == size
    assert params.pixels.model.kind == "hybrid"
    held_out = n * params.collect.split.test_share
    assert 2 <= params.evaluate.features.dim <= max(2, held_out / 5 * 0.7)
    assert n_features(survey) == params.evaluate.features.dim
    assert params.pixels.train is not None
    assert params.pixels.train.batch_size <= n_train(survey)
    first, _ = recipe(survey, size, steps, n_views=2, n_samples=100)["encoder"]["contrastive"]["views"]
    flips = [step for step in first if step["kind"] == "flip"]
    assert bool(flips) == bool(color)  # gray pictures may be letters


def test_what_is_odd_is_allowed_for_and_said() -> None:
    odd = replace(COLLECTION, constant=0.1, unreadable=0.05, elongated=0.3, n_captioned=7, labels="folder", n_classes=4)
    found = plan(odd, MACHINE, 45)
    assert found.params["encode"]["max_reject_share"] == 0.2
    assert found.params["collect"]["max_reject_share"] == 0.1
    said = "\n".join(seen_lines(odd))
    for part in ("30% are more than twice as long", "10% are of one color", "5% cannot be read", "4 folders", "7 have"):
        assert part in said


def test_choice_promise_and_outlook_are_said() -> None:
    found = plan(COLLECTION, MACHINE, 45)
    said = "\n".join(plan_lines(COLLECTION, MACHINE, found))
    assert f"{found.size} px" in said
    assert f"{found.steps['pixels']:,} steps, {found.seen:,} pictures seen" in said
    promise = list(time_lines(found, replace(MACHINE, busy=2.0), 45))
    assert "of 45 minutes" in promise[0]
    assert "2.0 times as long" in promise[1]
    assert len(list(time_lines(found, MACHINE, 45))) == 1
    outlook = "\n".join(outlook_lines(COLLECTION, MACHINE, found))
    assert f"64 px from {minutes_for(COLLECTION, MACHINE, 64)} minutes on" in outlook
    assert "a GPU" in outlook
    assert ("encoder that saw millions" in outlook) == (COLLECTION.encoder is None)
    gray = replace(COLLECTION, color=0.0)
    assert not any("saw millions" in line for line in outlook_lines(gray, MACHINE, found))
    assert gpu_minutes(found, MACHINE) < 0.1 * found.seconds["pixels"] / 60
