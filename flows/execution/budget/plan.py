"""Minutes -> params: the largest size whose painter sees enough pictures, and steps for every stage. Pure functions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.errors import ConfigError
from flows.execution.budget.recipe import BATCH, PAINTER_EVALUATIONS, RDM_STEPS, n_train, recipe, test_share
from flows.execution.budget.speeds import Speeds
from flows.execution.budget.survey import Survey

MOST_MINUTES = 7 * 24 * 60
"""A week: what takes longer is no matter of this machine."""
_NEEDED = {16: 0, 32: 48_000, 64: 250_000}
_RESERVE = 0.93
"""Share of the minutes that is planned: what is measured varies."""
_SHARES = {"encoder": 0.2, "rdm": 0.1, "evaluate": 0.07, "sample": 0.08}
"""Of the time that starting and reading leave; pixels gets the rest and what the others do not use."""
_LEAST = {"encoder": 60, "rdm": 200, "pixels": 200, "evaluate": 60, "sample": 100}
"""Training steps, and pictures of sample, below which a stage had better not run."""
_MOST = {"encoder": 10_000, "rdm": 10_000, "evaluate": 1_000, "sample": 1_000}
_MOST_PASSES = 1_500
"""Times that the painter sees a picture at most: beyond that it learns them by heart."""
_N_STAGES = 9
_LOOKS = 9
"""Times that the judge looks at a held-out picture, or at half of them: whole, spoiled, shrunk to every size."""
_PASSES = 3
_GPU_FLOPS = 15e12
"""What one GPU sustains in such small networks, about: to say what it would change, nothing more."""


@dataclass(frozen=True)
class Plan:
    """What the minutes are spent on."""

    size: int
    n_views: int
    steps: dict[str, int]
    """Training steps of encoder (none for a file), rdm, pixels and evaluate."""
    n_samples: int
    seconds: dict[str, float]
    """Of each stage on a quiet machine, its start included."""
    is_full: bool
    """Whether the painter has all the passes that the pictures bear: more minutes would not help at this size."""
    params: dict[str, Any] = field(repr=False)

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def seen(self) -> int:
        """Pictures that the painter is trained on, repeats included."""
        train: Mapping[str, Any] = self.params["pixels"]["train"]
        return self.steps["pixels"] * int(train["batch_size"])


def check_minutes(minutes: float) -> None:
    """Raises: ConfigError for a budget that is none."""
    if not 0 < minutes <= MOST_MINUTES:
        raise ConfigError(
            "no time budget",
            got=f"--minutes {minutes:g}",
            expected=f"above 0, and at most {MOST_MINUTES} (a week)",
            fix="a training of weeks is planned by hand: docs/how-to/paper-scale.md" if minutes > 0 else None,
        )


def needed(size: int) -> int:
    """Pictures that the painter has to see before this size shows more than the one below (docs/LOG.md)."""
    below, above = max(k for k in _NEEDED if k <= size), min(k for k in _NEEDED if k >= size)
    share = (size - below) / max(1, above - below)
    return round(_NEEDED[below] + share * (_NEEDED[above] - _NEEDED[below]))


def plan(survey: Survey, speeds: Speeds, minutes: float) -> Plan:
    """Raises: ConfigError naming the least minutes when these are too few."""
    check_minutes(minutes)
    for size in sorted(speeds.pixels_s, reverse=True):
        found = _at(survey, speeds, size, minutes)
        if found is not None and (found.seen >= needed(size) or found.is_full):
            return found
    small = min(speeds.pixels_s)
    found = _at(survey, speeds, small, minutes)
    if found is None:
        least = least_minutes(survey, speeds, small)
        raise ConfigError(
            f"{minutes:g} minutes are too few to train and judge anything on {survey.n} pictures here",
            expected=f"at least {least} minutes",
            fix=f"rcg init … --minutes {least}",
        )
    return found


def least_minutes(survey: Survey, speeds: Speeds, size: int) -> int:
    """The fewest whole minutes for which there is a plan at this size, whether its pictures are good or not."""
    fixed, each = _fixed(survey, speeds, size, n_views=1), _each(speeds, survey, size)
    least = sum(fixed.values()) + sum(_LEAST[stage] * each[stage] for stage in each)
    found = math.ceil(least / _RESERVE / 60)
    while found < MOST_MINUTES and _at(survey, speeds, size, found) is None:  # shares may be more than the least
        found += 1
    return found


def minutes_for(survey: Survey, speeds: Speeds, size: int) -> int | None:
    """The fewest whole minutes for which this size is chosen; None where a week is too short."""
    low, high = 0, MOST_MINUTES
    if _chosen(survey, speeds, size, high) is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _chosen(survey, speeds, size, middle) else (middle, high)
    return high


def gpu_minutes(plan: Plan, speeds: Speeds) -> float:
    """What the painter's steps would take on one GPU, very roughly."""
    return plan.steps["pixels"] * max(0.005, speeds.pixels_flops[plan.size] / _GPU_FLOPS) / 60


def _chosen(survey: Survey, speeds: Speeds, size: int, minutes: float) -> Plan | None:
    found = _at(survey, speeds, size, minutes) if minutes > 0 else None
    return found if found is not None and (found.seen >= needed(size) or found.is_full) else None


def _at(survey: Survey, speeds: Speeds, size: int, minutes: float) -> Plan | None:
    """The plan at one size; None where the painter would get too few steps beside the least of the others."""
    total = minutes * 60 * _RESERVE
    n_views = next((n for n in (4, 2) if _encode_s(survey, speeds, size, n) < 0.08 * total), 1)
    fixed, each = _fixed(survey, speeds, size, n_views=n_views), _each(speeds, survey, size)
    spare = total - sum(fixed.values())
    units = {
        stage: max(_LEAST[stage], int(min(_MOST[stage], share * spare / each[stage])))
        for stage, share in _SHARES.items()
        if stage in each
    }
    left = spare - sum(units[stage] * each[stage] for stage in units)
    bearable = _MOST_PASSES * max(1, n_train(survey)) // _batch_of(survey, size)
    units["pixels"] = int(min(bearable, left / each["pixels"]))
    if units["pixels"] < min(bearable, _LEAST["pixels"]):
        return None
    steps, n_samples = {stage: n for stage, n in units.items() if stage != "sample"}, units["sample"]
    seconds = {stage: fixed[stage] + units.get(stage, 0) * each.get(stage, 0.0) for stage in fixed}
    params = recipe(survey, size, steps, n_views=n_views, n_samples=n_samples)
    return Plan(size, n_views, steps, n_samples, seconds, units["pixels"] == bearable, params)


def _batch_of(survey: Survey, size: int) -> int:
    steps = dict.fromkeys(("encoder", "rdm", "pixels", "evaluate"), 100)
    batch: int = recipe(survey, size, steps, n_views=1, n_samples=100)["pixels"]["train"]["batch_size"]
    return batch


def _each(speeds: Speeds, survey: Survey, size: int) -> dict[str, float]:
    """Seconds of one unit of a stage: a training step, or a picture of sample, which evaluate looks at, too."""
    painter = speeds.pixels_s[size] / BATCH["pixels"] / _PASSES  # one evaluation for one picture
    rdm = speeds.rdm_s / BATCH["rdm"] / _PASSES
    shrunk = _batch_of(survey, size) / BATCH["pixels"]
    trained = {"encoder": speeds.encoder_s[size] * min(1.0, shrunk)} if survey.encoder is None else {}
    if survey.judge is None:
        trained["evaluate"] = speeds.evaluate_s[size] * min(1.0, shrunk)
    return trained | {
        "rdm": speeds.rdm_s * min(1.0, shrunk),
        "pixels": speeds.pixels_s[size] * shrunk,
        "sample": painter * PAINTER_EVALUATIONS + rdm * RDM_STEPS,
    }


def _encode_s(survey: Survey, speeds: Speeds, size: int, n_views: int) -> float:
    """The plain view of every picture and further ones of those to train on; each picture is decoded once."""
    forward = speeds.look_s[size]
    return survey.n * survey.read_s + (survey.n + (n_views - 1) * n_train(survey)) * (forward + survey.read_s / 4)


def _fixed(survey: Survey, speeds: Speeds, size: int, *, n_views: int) -> dict[str, float]:
    """Seconds of each stage besides its units."""
    forward = speeds.look_s[size]
    painter = speeds.pixels_s[size] / BATCH["pixels"] / _PASSES
    n_test = int(test_share(survey) * survey.n)
    n_val = min(2048, int(0.15 * survey.n))
    extra = {
        "collect": survey.n * survey.read_s,
        "encoder": survey.n * survey.read_s + min(10_000, survey.n) * forward * 2,
        "codec": 0.0,
        "encode": _encode_s(survey, speeds, size, n_views),
        "rdm": 500 * speeds.rdm_s / BATCH["rdm"] / _PASSES * RDM_STEPS,
        "pixels": painter * (4 * 32 * PAINTER_EVALUATIONS + 4 * n_val),
        "sample": 0.0,
        "evaluate": survey.n * survey.read_s
        + (survey.n + _MOST["sample"] + _LOOKS * min(1000, n_test)) * speeds.judge_s[size]
        + _MOST["sample"] * forward
        + min(500, n_test) * painter * PAINTER_EVALUATIONS,  # own pictures
        "bundle": 1.0,
    }
    return {stage: speeds.start_s + seconds for stage, seconds in extra.items()}
