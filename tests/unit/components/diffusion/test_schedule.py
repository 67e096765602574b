"""Noise schedules against their formulas, and respacing that is exact or refuses."""

import itertools
import math

import pytest
import torch

from components.diffusion.process import alpha_bars, sampler_steps
from components.diffusion.schedule import ScheduleConfig, Spacing, valid_counts
from components.errors import ConfigError

SQRT_LINEAR, LINEAR, COSINE = (ScheduleConfig(kind=k, n_times=1000) for k in ("sqrt_linear", "linear", "cosine"))


def _product_of(beta: list[float]) -> list[float]:
    out, level = [], 1.0
    for b in beta:
        level *= 1 - b
        out.append(level)
    return out


def test_linear_schedules_are_running_products_of_one_minus_beta() -> None:
    low, high = 0.0015**0.5, 0.0195**0.5
    roots = _product_of([(low + t / 999 * (high - low)) ** 2 for t in range(1000)])
    assert alpha_bars(SQRT_LINEAR).tolist() == pytest.approx(roots, rel=1e-12)
    straight = _product_of([1e-4 + t / 999 * (0.02 - 1e-4) for t in range(1000)])
    assert alpha_bars(LINEAR).tolist() == pytest.approx(straight, rel=1e-12)
    assert alpha_bars(LINEAR).dtype == torch.float64


def test_cosine_follows_its_level_until_beta_is_clipped() -> None:
    def level(t: int) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    ab = alpha_bars(COSINE)
    assert ab[:998].tolist() == pytest.approx([level(t + 1) / level(0) for t in range(998)], rel=1e-9)
    assert float(ab[999] / ab[998]) == pytest.approx(1 - 0.999)


@pytest.mark.parametrize("spacing", ["trailing", "reference"])
@pytest.mark.parametrize("n", [1, 2, 8, 50, 250, 500])
def test_every_valid_count_is_honored_exactly(n: int, spacing: Spacing) -> None:
    steps = sampler_steps(LINEAR, n, spacing)
    times = [step.t for step in steps]
    ab = alpha_bars(LINEAR).tolist()
    assert len(times) == n
    assert all(a - b == 1000 // n for a, b in itertools.pairwise(times))
    assert [step.ab for step in steps] == [ab[t] for t in times]
    assert [step.ab_prev for step in steps[:-1]] == [step.ab for step in steps[1:]]
    assert all(step.ab < step.ab_prev for step in steps)
    first, last = (999, 1.0) if spacing == "trailing" else (1001 - 1000 // n, ab[0])
    assert (times[0], steps[-1].ab_prev) == (first, last)


def test_valid_counts() -> None:
    assert valid_counts(1000, "reference") == [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500]
    assert valid_counts(1000, "trailing") == list(range(1, 1001))
    assert valid_counts(1000, "linspace") == list(range(2, 1001))
    leading = valid_counts(1000, "leading")
    assert 25 in leading
    assert 64 not in leading


def test_fast27_is_glides() -> None:
    expected = [0, 22, 44, 66, 88, 111, 133, 155, 177, 199, 200, 222, 244, 266, 288, 311, 333, 355, 377, 399]
    expected += [400, 500, 599, 600, 799, 800, 997]
    assert [step.t for step in sampler_steps(COSINE, 27, "fast27")][::-1] == expected
    assert sampler_steps(COSINE, 27, "fast27")[-1].ab_prev == 1.0
    with pytest.raises(ConfigError, match="27"):
        sampler_steps(COSINE, 26, "fast27")
    with pytest.raises(ConfigError, match="27 sampling steps"):
        sampler_steps(ScheduleConfig(kind="linear", n_times=40), 27, "fast27")


def test_sections_are_spaced_one_by_one() -> None:
    """guided-diffusion's space_timesteps, by the numbers that it gives."""
    times = [step.t for step in sampler_steps(COSINE, 27, "linspace", (10, 10, 3, 2, 2))][::-1]
    assert times[:-1] == [step.t for step in sampler_steps(COSINE, 27, "fast27")][:0:-1]
    assert times[-1] == 999
    odd = ScheduleConfig(kind="linear", n_times=11)  # sections of 4, 4 and 3 times
    assert [step.t for step in sampler_steps(odd, 6, "linspace", (3, 1, 2))][::-1] == [0, 2, 3, 4, 8, 10]
    assert sampler_steps(COSINE, 250, "linspace", (250,)) == sampler_steps(COSINE, 250, "linspace")


@pytest.mark.parametrize(
    ("n", "spacing", "sections", "what"),
    [
        (4, "trailing", (2, 2), "both ends"),
        (5, "linspace", (2, 2), "another number of steps"),
        (503, "linspace", (501, 2), "not so many"),
        (2, "linspace", (0, 2), "not so many"),
    ],
)
def test_sections_that_cannot_be_are_refused(n: int, spacing: Spacing, sections: tuple[int, ...], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        sampler_steps(COSINE, n, spacing, sections)


@pytest.mark.parametrize("n", [3, 7, 30, 64, 333, 999])
def test_any_count_of_trailing_steps_ends_on_the_data(n: int) -> None:
    times = [step.t for step in sampler_steps(LINEAR, n, "trailing")]
    assert (len(times), times[0]) == (n, 999)
    gaps = [a - b for a, b in itertools.pairwise([*times, -1])]
    assert set(gaps) <= {1000 // n, 1000 // n + 1}
    assert sampler_steps(LINEAR, n, "trailing")[-1].ab_prev == 1.0


@pytest.mark.parametrize(
    ("n", "near"), [(30, "20, 25, 40, 50"), (333, "200, 250, 500"), (3, "1, 2, 4, 5"), (999, "250, 500")]
)
def test_other_counts_are_refused_with_their_neighbors(n: int, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sampler_steps(LINEAR, n, "reference")
    assert caught.value.expected == f"near it: {near}"
    assert caught.value.got == n


def test_a_thousand_steps_work_only_where_every_time_exists() -> None:
    assert [s.t for s in sampler_steps(LINEAR, 1000, "trailing")] == list(range(999, -1, -1))
    with pytest.raises(ConfigError):
        sampler_steps(LINEAR, 1000, "reference")


@pytest.mark.parametrize(("n", "spacing"), [(0, "trailing"), (1001, "trailing"), (1, "linspace"), (64, "leading")])
def test_counts_out_of_range_are_refused(n: int, spacing: Spacing) -> None:
    with pytest.raises(ConfigError, match=f"{n} sampling steps"):
        sampler_steps(LINEAR, n, spacing)


def test_a_default_device_without_data_leaves_no_trace() -> None:
    """A model may be laid out on the meta device first; the sampler's numbers must exist all the same."""
    with torch.device("meta"):
        steps = sampler_steps(COSINE, 4, "trailing")
    assert steps == sampler_steps(COSINE, 4, "trailing")
