"""Respacing, learned variance and the few-step solver against small oracles written from the formulas.

Provenance: index tables of openai/guided-diffusion @ 22e0df8 and LTH14/rcg @ 0c4433c (LDM's sampler); the rest are
formulas in float64 numpy. Tolerances: 1e-5 relative where our side is float32.
"""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from components.conditions.container import Conditions
from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.diffusion.process import alpha_bars, sampler_steps
from components.diffusion.samplers import Denoised, ancestral, ddim, dpm_solver_2m
from components.diffusion.schedule import ScheduleConfig
from components.diffusion.variational import Posterior, bound_bits
from components.generators.config import DiffusionConfig, GeneratorData
from components.generators.diffusion import Diffusion
from components.rng import BatchRng, RowRng
from components.target import TargetSpec

LINEAR = ScheduleConfig(kind="linear", n_times=1000)


def chain() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """beta, alpha-bar, alpha-bar of the time before, beta-tilde (its first replaced by its second)."""
    beta = np.linspace(1e-4, 0.02, 1000)
    ab = np.cumprod(1 - beta)
    before = np.append(1.0, ab[:-1])
    tilde = beta * (1 - before) / (1 - ab)
    return beta, ab, before, np.append(tilde[1], tilde[1:])


def test_250_steps_of_dit_and_adm() -> None:
    """One section of 250 evenly spaced times, both ends included, rounded half to even."""
    times = [step.t for step in sampler_steps(LINEAR, 250, "linspace")][::-1]
    assert times == [round(i * 999 / 249) for i in range(250)]
    assert (times[0], times[-1], len(set(times))) == (0, 999, 250)


def test_ddim25_of_adm() -> None:
    assert [step.t for step in sampler_steps(LINEAR, 25, "leading")][::-1] == list(range(0, 1000, 40))


def test_200_steps_of_ldm() -> None:
    steps = sampler_steps(ScheduleConfig(kind="sqrt_linear", n_times=1000), 200, "reference")
    assert [step.t for step in steps][::-1] == [i + 1 for i in range(0, 1000, 5)]
    assert steps[-1].ab_prev == pytest.approx(0.9985)


def test_a_learned_variance_lies_between_its_bounds_in_logarithms() -> None:
    beta, _, _, tilde = chain()
    t, f = torch.tensor([0, 1, 10, 500, 999]), torch.tensor([0.0, 0.25, 0.5, 1.0, 1.3])
    ours = Posterior(LINEAR).log_variance(f[:, None], t)[:, 0]
    theirs = f.numpy() * np.log(beta[t]) + (1 - f.numpy()) * np.log(tilde[t])
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-5)


def test_the_ancestral_sampler_draws_with_the_learned_variance() -> None:
    """One step of the respaced chain by hand, number by number."""
    steps = sampler_steps(LINEAR, 4, "linspace")[:1]
    x_t, f = torch.tensor([[0.3, -1.2]]), torch.tensor([[0.2, 0.9]])

    def denoise(x: Tensor, t: int, ports: Ports) -> Denoised:
        return Denoised(torch.tensor([[0.5, 0.1]]), steps[0].log_variance(f))

    drawn = ancestral(denoise, x_t, Ports(), steps, rng=RowRng([3]))
    noise, _, ab = RowRng([3]).normal(2)[0].tolist(), None, alpha_bars(LINEAR).tolist()
    a, a_prev = ab[999], ab[666]
    beta = 1 - a / a_prev
    tilde = beta * (1 - a_prev) / (1 - a)
    for i in range(2):
        mean = a_prev**0.5 * beta / (1 - a) * [0.5, 0.1][i] + (1 - beta) ** 0.5 * (1 - a_prev) / (1 - a) * x_t[0, i]
        share = float(f[0, i])
        std = (beta**share * tilde ** (1 - share)) ** 0.5
        assert float(drawn[0, i]) == pytest.approx(float(mean) + std * noise[i], rel=1e-5)


def naive_bound(x0: np.ndarray, x_t: np.ndarray, guess: np.ndarray, f: np.ndarray, t: int) -> float:
    """KL of two normals, or at t = 0 the likelihood in bins; bits per element."""
    beta, ab, before, tilde = chain()
    from_x0 = before[t] ** 0.5 * beta[t] / (1 - ab[t])
    from_x_t = (1 - beta[t]) ** 0.5 * (1 - before[t]) / (1 - ab[t])
    mean, true = from_x0 * guess + from_x_t * x_t, from_x0 * x0 + from_x_t * x_t
    log_variance = f * np.log(beta[t]) + (1 - f) * np.log(tilde[t])
    if t == 0:
        std = np.exp(log_variance / 2)
        high, low = norm.cdf((x0 + 1 / 255 - mean) / std), norm.cdf((x0 - 1 / 255 - mean) / std)
        high, low = np.where(x0 > 0.999, 1.0, high), np.where(x0 < -0.999, 0.0, low)
        return float(-np.log(np.maximum(high - low, 1e-12)).mean() / math.log(2))
    first = np.log(tilde[t])
    kl = 0.5 * (log_variance - first + np.exp(first - log_variance) + (true - mean) ** 2 / np.exp(log_variance) - 1)
    return float(kl.mean() / math.log(2))


def test_the_bound_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, x_t, guess, f = torch.randn(4, 4, 3, generator=generator)
    x0 = (x0.clamp(-1, 1) * 127.5).round() / 127.5  # as images are
    t = torch.tensor([0, 1, 400, 999])
    f, guess = f.requires_grad_(), guess.requires_grad_()
    bits = bound_bits(Posterior(LINEAR), x0, x_t, guess, f, t)
    values = [v.detach().double().numpy() for v in (x0, x_t, guess, f)]
    expected = [naive_bound(*(v[i] for v in values), int(t[i])) for i in range(4)]
    assert bits.tolist() == pytest.approx(expected, rel=2e-4)
    bits.sum().backward()
    assert guess.grad is None, "the bound says nothing to the mean"
    assert f.grad is not None
    step = 1e-5
    for i in range(1, 4):
        moved = values[3][i].copy()
        moved[1] += step
        slope = (naive_bound(values[0][i], values[1][i], values[2][i], moved, int(t[i])) - expected[i]) / step
        assert float(f.grad[i, 1]) == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_the_solver_is_exact_for_a_denoiser_that_does_not_move() -> None:
    """With a constant guess the exponential integrator has no error: x = ab x0 + sigma eps on the way, to the last."""
    x0, eps = torch.tensor([[0.7, -0.2]], dtype=torch.float64), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    steps = sampler_steps(LINEAR, 5, "trailing")[:-1]
    start = math.sqrt(steps[0].ab) * x0 + math.sqrt(1 - steps[0].ab) * eps

    def still(x: Tensor, t: int, ports: Ports) -> Denoised:
        return Denoised(x0, None)

    end = dpm_solver_2m(still, start, Ports(), steps)
    left = steps[-1].ab_prev
    torch.testing.assert_close(end, math.sqrt(left) * x0 + math.sqrt(1 - left) * eps, rtol=1e-12, atol=1e-12)


def test_the_solver_beats_ddim_on_a_gaussian_whose_flow_is_known() -> None:
    """x0 ~ N(m, s^2): the flow maps x_t - sqrt(ab) m by the ratio of marginal deviations."""
    ab, m, s = alpha_bars(LINEAR).tolist(), 1.5, 0.4

    def denoise(x: Tensor, t: int, ports: Ports) -> Denoised:
        gain = math.sqrt(ab[t]) * s**2 / (ab[t] * s**2 + 1 - ab[t])
        return Denoised(m + gain * (x - math.sqrt(ab[t]) * m), None)

    steps = sampler_steps(LINEAR, 20, "trailing")
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[None]
    first = steps[0].ab
    exact = m + s * (x - math.sqrt(first) * m) / math.sqrt(first * s**2 + 1 - first)
    error = float((dpm_solver_2m(denoise, x, Ports(), steps) - exact).abs().max())
    plain = float((ddim(denoise, x, Ports(), steps, eta=0.0, rng=RowRng([0])) - exact).abs().max())
    assert error < 0.5 * plain


class Answer(Network):
    """Predicts a tensor that is a parameter, so that its gradient is the loss's gradient of the output."""

    def __init__(self, out: Tensor) -> None:
        super().__init__(vector_width=4)
        self.out = torch.nn.Parameter(out)

    def time_vectors(self, t: Tensor) -> Tensor:
        return torch.zeros(len(t), 4)

    def forward(self, x_t: Tensor, time: Tensor, ports: Ports) -> Tensor:  # noqa: ARG002
        return self.out


def test_the_hybrid_loss_trains_the_mean_by_the_error_alone_and_the_variance_by_the_bound_alone() -> None:
    target = TargetSpec(space="latents", shape=(2, 4, 4), dtype="float32", n_codes=None, image_px=8)
    data = GeneratorData(target=target, dim=3, classes=None)
    generator = torch.Generator().manual_seed(1)
    out, x0 = torch.randn(5, 4, 4, 4, generator=generator), torch.randn(5, 2, 4, 4, generator=generator)
    gradients = {}
    for variance, c in (("fixed", 2), ("learned", 4)):
        config = DiffusionConfig(conditions=(), schedule=LINEAR, prediction="eps", min_snr=None, variance=variance)
        net = Answer(out[:, :c].clone())
        nothing = Conditions((), net, ())
        model = Diffusion(config, data, spec=target, network=net, conditions=nothing)
        loss = model.loss({"target": x0}, BatchRng(2, 5))
        loss.sum().backward()
        gradients[variance] = net.out.grad, loss.detach()
    (plain, plain_loss), (hybrid, hybrid_loss) = gradients["fixed"], gradients["learned"]
    assert plain is not None
    assert hybrid is not None
    torch.testing.assert_close(hybrid[:, :2], plain, rtol=1e-6, atol=1e-8)
    assert bool(hybrid[:, 2:].any())

    rng = BatchRng(2, 5)
    t = rng.integers(1000)
    eps = rng.normal(2, 4, 4)
    ab = alpha_bars(LINEAR)[t].float().view(-1, 1, 1, 1)
    x_t = ab.sqrt() * x0 + (1 - ab).sqrt() * eps
    guess = (x_t - (1 - ab).sqrt() * out[:, :2]) / ab.sqrt()
    f = ((out[:, 2:] + 1) / 2).requires_grad_()
    bits = bound_bits(Posterior(LINEAR), x0, x_t, guess, f, t)
    torch.testing.assert_close(hybrid_loss, plain_loss + bits.detach(), rtol=1e-4, atol=1e-5)
    bits.sum().backward()
    assert f.grad is not None
    torch.testing.assert_close(hybrid[:, 2:], f.grad / 2, rtol=1e-4, atol=1e-6)
