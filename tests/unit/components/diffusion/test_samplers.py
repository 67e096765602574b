"""Samplers against naive float64 loops and against data whose denoiser is known in closed form."""

import math

import pytest
import torch
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.guidance import clamped, classifier_free
from components.diffusion.process import Step, alpha_bars, sampler_steps
from components.diffusion.samplers import Denoised, ancestral, ddim, dpm_solver_2m
from components.diffusion.schedule import ScheduleConfig, Spacing
from components.rng import RowRng

SCHEDULE = ScheduleConfig(kind="linear", n_times=1000)
AB = alpha_bars(SCHEDULE).tolist()
STD = 0.5


def gaussian(x_t: Tensor, t: int, ports: Ports) -> Denoised:
    """E[x0 | x_t] for x0 ~ N(0, STD^2)."""
    return Denoised(math.sqrt(AB[t]) * STD**2 / (AB[t] * STD**2 + 1 - AB[t]) * x_t, None)


def bent(x_t: Tensor, t: int, ports: Ports) -> Denoised:
    """A denoiser that is not linear in anything."""
    return Denoised(torch.tanh(x_t * (1 + t / 500) + t / 1000), None)


def naive_ddim(x: list[float], noise: list[list[float]], n: int, eta: float, spacing: Spacing) -> list[float]:
    """Equation 12 of 2010.02502, number by number."""
    stride = 1000 // n
    times = [i * stride + 1 if spacing == "reference" else (i + 1) * stride - 1 for i in range(n)]
    for k in reversed(range(n)):
        a = AB[times[k]]
        a_prev = AB[times[k - 1]] if k else (AB[0] if spacing == "reference" else 1.0)
        sigma = eta * ((1 - a_prev) / (1 - a)) ** 0.5 * (1 - a / a_prev) ** 0.5
        new = []
        for i, value in enumerate(x):
            x0 = math.tanh(value * (1 + times[k] / 500) + times[k] / 1000)
            eps = (value - a**0.5 * x0) / (1 - a) ** 0.5
            shaken = sigma * noise[k][i] if sigma > 0 else 0.0
            new.append(a_prev**0.5 * x0 + max(0.0, 1 - a_prev - sigma**2) ** 0.5 * eps + shaken)
        x = new
    return x


@pytest.mark.parametrize("spacing", ["trailing", "reference"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 8, 50])
def test_ddim_is_the_papers_recursion(n: int, eta: float, spacing: Spacing) -> None:
    start = RowRng([3]).normal(4).double()
    draws = RowRng([4])
    steps = sampler_steps(SCHEDULE, n, spacing)
    n_noisy = 0 if eta == 0 else n - (spacing == "trailing")
    noise = [draws.normal(4)[0].tolist() for _ in range(n_noisy)]
    by_step = [[0.0] * 4] * (n - n_noisy) + noise[::-1]  # drawn from the first step down; index 0 is the last step
    expected = naive_ddim(start[0].tolist(), by_step, n, eta, spacing)
    result = ddim(bent, start, Ports(), steps, eta=eta, rng=RowRng([4]))
    assert result[0].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_ancestral_is_ddim_with_eta_one() -> None:
    steps = sampler_steps(SCHEDULE, 50, "trailing")
    start = RowRng([1, 2]).normal(6)
    by_posterior = ancestral(bent, start, Ports(), steps, rng=RowRng([5, 6]))
    torch.testing.assert_close(
        by_posterior, ddim(bent, start, Ports(), steps, eta=1.0, rng=RowRng([5, 6])), rtol=1e-4, atol=1e-5
    )


def test_ancestral_sampling_reaches_the_variance_of_the_data() -> None:
    rng = RowRng(range(64))
    drawn = ancestral(gaussian, rng.normal(200), Ports(), sampler_steps(SCHEDULE, 250, "trailing"), rng=rng)
    assert float(drawn.std()) == pytest.approx(STD, rel=0.03)


def _ode_error(n: int, solver: str) -> float:
    """Distance to the exact probability-flow solution for Gaussian data: x scales with its marginal std.

    The n steps are even in log-SNR from alpha-bar 0.01 to 0.99, as the solver's order is stated in it.
    """
    low, high = math.log(0.01 / 0.99), math.log(0.99 / 0.01)
    levels = [1 / (1 + math.exp(-(low + i / n * (high - low)))) for i in range(n + 1)]
    steps = [Step(i, levels[i], levels[i + 1]) for i in range(n)]

    def denoise(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        return Denoised(math.sqrt(levels[t]) * STD**2 / (levels[t] * STD**2 + 1 - levels[t]) * x_t, None)

    start = torch.linspace(-2, 2, 9, dtype=torch.float64)[None]
    if solver == "ddim":
        end = ddim(denoise, start, Ports(), steps, eta=0.0, rng=RowRng([0]))
    else:
        end = dpm_solver_2m(denoise, start, Ports(), steps)
    exact = start * math.sqrt((0.99 * STD**2 + 0.01) / (0.01 * STD**2 + 0.99))
    return float((end - exact).abs().max())


def test_dpm_solver_is_second_order_and_ddim_first() -> None:
    ddim_errors, dpm_errors = ([_ode_error(n, s) for n in (40, 80, 160)] for s in ("ddim", "dpm"))
    assert [ddim_errors[i] / ddim_errors[i + 1] for i in (0, 1)] == pytest.approx([2, 2], rel=0.1)
    assert [dpm_errors[i] / dpm_errors[i + 1] for i in (0, 1)] == pytest.approx([4, 4], rel=0.15)
    assert dpm_errors[0] < 0.2 * ddim_errors[0]


def test_a_walk_that_ends_on_the_data_returns_the_last_guess() -> None:
    steps = sampler_steps(SCHEDULE, 10, "trailing")

    def constant(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        return Denoised(torch.full_like(x_t, 0.25), None)

    start = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    for end in (
        ddim(constant, start, Ports(), steps, eta=1.0, rng=RowRng([0, 1, 2])),
        dpm_solver_2m(constant, start, Ports(), steps),
        ancestral(constant, start, Ports(), steps, rng=RowRng([0, 1, 2])),
    ):
        torch.testing.assert_close(end, torch.full((3, 2), 0.25))


def test_a_row_does_not_depend_on_its_companions() -> None:
    steps = sampler_steps(SCHEDULE, 20, "trailing")

    def walk(seeds: list[int]) -> Tensor:
        rng = RowRng(seeds)
        return ddim(bent, rng.normal(3), Ports(), steps, eta=0.7, rng=rng)

    assert torch.equal(walk([1, 2, 3])[1:2], walk([2]))


def told(x_t: Tensor, t: int, ports: Ports) -> Denoised:
    assert ports.vector is not None
    return Denoised(x_t + ports.vector, ports.vector)


def test_guidance_extrapolates_from_the_null_to_the_condition_and_keeps_its_variance() -> None:
    x, condition, null = torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]), torch.tensor([[0.5], [0.5]])
    ports, nulls = Ports(vector=condition), Ports(vector=null)
    assert classifier_free(told, 0.0)(x, 0, ports.beside(nulls)).x0.tolist() == condition.tolist()
    guided = classifier_free(told, 2.0)(x, 0, ports.beside(nulls))
    assert guided.x0.tolist() == [[2.0], [8.0]]  # c + 2 (c - 0.5)
    assert guided.log_variance is not None
    assert guided.log_variance.tolist() == condition.tolist()


def test_guiding_x0_is_guiding_eps() -> None:
    ab, scale = 0.3, 1.7
    generator = torch.Generator().manual_seed(1)
    x_t, eps_cond, eps_null = torch.randn(3, 1, 4, generator=generator).double()
    guided_eps = eps_cond + scale * (eps_cond - eps_null)

    def x0(eps: Tensor) -> Tensor:
        return (x_t - (1 - ab) ** 0.5 * eps) / ab**0.5

    def denoise(x: Tensor, t: int, ports: Ports) -> Denoised:
        assert ports.vector is not None
        return Denoised(ports.vector, None)

    both = Ports(vector=x0(eps_cond)).beside(Ports(vector=x0(eps_null)))
    guided = classifier_free(denoise, scale)(x_t, 0, both)
    torch.testing.assert_close(guided.x0, x0(guided_eps))


def test_clamp_keeps_the_guess_inside_its_range() -> None:
    x = torch.tensor([[-3.0, 0.5, 3.0]])
    inside = clamped(told, -1.0, 1.0)(x, 0, Ports(vector=torch.zeros(1, 3)))
    assert inside.x0.tolist() == [[-1.0, 0.5, 1.0]]
