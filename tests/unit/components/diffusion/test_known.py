"""Known parts against a correlated Gaussian, whose conditional distribution is known in closed form.

Every even coordinate is known. An inpainter, which sees what is known, samples the conditional distribution; replacing
the guess of a denoiser that does not see it is biased, and less so when steps are repainted.
"""

import math

import torch
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.guidance import clamped, consistent, known
from components.diffusion.process import alpha_bars, sampler_steps
from components.diffusion.samplers import Denoised, Denoiser, ancestral, ddim, repainted
from components.diffusion.schedule import ScheduleConfig
from components.rng import BatchRng

SCHEDULE = ScheduleConfig(kind="linear", n_times=1000)
AB = alpha_bars(SCHEDULE).tolist()
D, N = 4, 2048
COV = torch.tensor([[0.9 ** abs(i - j) for j in range(D)] for i in range(D)]).double()
WHERE = torch.tensor([True, False, True, False])
GIVEN = torch.tensor([1.5, 0.0, -0.5, 0.0]).double()
K, U = torch.arange(0, D, 2), torch.arange(1, D, 2)
REGRESSION = COV[U][:, K] @ torch.linalg.inv(COV[K][:, K])
MEAN, COND_COV = REGRESSION @ GIVEN[K], COV[U][:, U] - REGRESSION @ COV[K][:, U]


def unaware(x_t: Tensor, t: int, ports: Ports) -> Denoised:
    """E[x0 | x_t]."""
    gain = math.sqrt(AB[t]) * torch.linalg.inv(AB[t] * COV + (1 - AB[t]) * torch.eye(D).double()) @ COV
    return Denoised(x_t @ gain.T, None)


def idle(x_t: Tensor, t: int, ports: Ports) -> Denoised:
    """The noisy sample itself."""
    return Denoised(x_t, None)


def inpainter(x_t: Tensor, t: int, ports: Ports) -> Denoised:
    """E[x0 | x_t, what is known]."""
    gain = math.sqrt(AB[t]) * torch.linalg.inv(AB[t] * COND_COV + (1 - AB[t]) * torch.eye(2).double()) @ COND_COV
    x0 = GIVEN.expand_as(x_t).clone()
    x0[:, U] = MEAN + (x_t[:, U] - math.sqrt(AB[t]) * MEAN) @ gain.T
    return Denoised(x0, None)


def sampled(denoise: Denoiser, *, times: int = 1, n_steps: int = 50) -> Tensor:
    rng = BatchRng(0, N)
    steps = sampler_steps(SCHEDULE, n_steps, "trailing")
    x_T = rng.normal(D).double()
    return repainted(lambda x, some: ancestral(denoise, x, Ports(), some, rng=rng), x_T, steps, times=times, rng=rng)


def test_consistency_moves_a_guess_to_the_nearest_with_these_means() -> None:
    x, truth = (torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    small = torch.nn.functional.avg_pool2d(truth, 2)
    moved = consistent(idle, small)(x, 0, Ports()).x0
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(moved, 2), small)
    square = [(a - b).square().sum() for a, b in ((x, truth), (x, moved), (moved, truth))]
    torch.testing.assert_close(square[0], square[1] + square[2], msg="a right angle: a projection")


def test_an_inpainter_samples_the_conditional_distribution_and_replacement_is_biased() -> None:
    filled = sampled(inpainter, n_steps=250)[:, U]
    torch.testing.assert_close(filled.mean(0), MEAN, atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(filled.T), COND_COV, atol=0.02, rtol=0)
    replaced, repaint = (sampled(known(unaware, GIVEN, WHERE), times=times)[:, U] for times in (1, 5))
    errors = [float((x.mean(0) - MEAN).abs().max()) for x in (replaced, repaint)]
    assert errors[0] > 0.3, "the mean of what replacement fills in is far off"
    assert errors[1] < 0.7 * errors[0]
    assert float(replaced.var(0)[1]) > 1.4 * float(COND_COV[1, 1]), "it is tied too loosely to what is known"


def test_what_is_known_is_exact_and_outlives_a_clamp_inside() -> None:
    x = sampled(known(clamped(unaware, -1.0, 1.0), GIVEN, WHERE))
    torch.testing.assert_close(x[:, K], GIVEN[K].expand(N, -1), atol=1e-12, rtol=0)
    assert float(x[:, K[0]].max()) > 1


def test_one_time_is_the_sampler_itself() -> None:
    steps, x_T = sampler_steps(SCHEDULE, 10, "trailing"), BatchRng(1, 3).normal(D).double()

    def walk(x: Tensor, some: object) -> Tensor:
        assert some is steps
        return ddim(unaware, x, Ports(), steps, eta=0.0, rng=BatchRng(2, 3))

    assert torch.equal(repainted(walk, x_T, steps, times=1, rng=BatchRng(3, 3)), walk(x_T, steps))


def test_repainted_steps_keep_the_distribution() -> None:
    """Without anything known, going back and forth changes no moments."""
    x = sampled(unaware, times=3, n_steps=100)
    torch.testing.assert_close(torch.cov(x.T), COV, atol=0.12, rtol=0)
