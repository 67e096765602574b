"""Guidance: by an exact guide it is conditioning; limited to an interval; by an earlier state of the same training."""

import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.guidance import Guide, autoguided, classifier_free, guided_by, times_within
from components.diffusion.process import Step, alpha_bars, sampler_steps
from components.diffusion.samplers import Denoised, Denoiser, ancestral, ddim
from components.diffusion.schedule import ScheduleConfig
from components.errors import ConfigError
from components.generators.diffusion import Diffusion
from components.generators.sampling import DiffusionSampling, GuideOptions
from components.rdm import RdmConfig
from components.rng import RowRng
from components.training.config import EmaConfig
from components.training.generator import GeneratorTrainable
from tests.support.folders import randomize
from tests.support.generators import build_rdm, conditions

SCHEDULE = ScheduleConfig(kind="linear", n_times=1000)
MEANS = torch.tensor([[1.0, 0.5], [-1.0, 1.0], [0.2, -1.5]], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
CLASS = torch.tensor([0, 1, 0])
"""Of each Gaussian of the mixture."""
AB = dict(enumerate(alpha_bars(SCHEDULE).tolist()))
Y = torch.tensor([0, 1]).repeat(8)


def log_joint(x_t: Float[Tensor, "b 2"], t: int) -> Float[Tensor, "b 3"]:
    """log p(x_t, Gaussian k)."""
    variance = AB[t] * STDS**2 + 1 - AB[t]
    squares = (x_t[:, None] - math.sqrt(AB[t]) * MEANS).square().sum(2)
    return WEIGHTS.log() - squares / (2 * variance) - variance.log()


def of_class(y: Tensor) -> Float[Tensor, "b 3"]:
    """0 where Gaussian k is of the class, else minus infinity."""
    return torch.where(y[:, None] == CLASS, 0.0, -torch.inf)


def log_likelihood(x_t: Tensor, t: int) -> Tensor:
    joint = log_joint(x_t, t)
    return (joint + of_class(Y)).logsumexp(1) - joint.logsumexp(1)


def exact(y: Tensor | None) -> Denoiser:
    """The posterior mean of x0, given classes or not."""

    def denoise(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        share = (log_joint(x_t, t) + (0.0 if y is None else of_class(y))).softmax(1)
        gain = math.sqrt(AB[t]) * STDS**2 / (AB[t] * STDS**2 + 1 - AB[t])
        each = MEANS + gain[:, None] * (x_t[:, None] - math.sqrt(AB[t]) * MEANS)
        return Denoised((share[:, :, None] * each).sum(1), None)

    return denoise


@torch.no_grad()
def test_an_exact_guide_makes_of_the_unconditional_denoiser_the_conditional_one_at_every_time() -> None:
    guided = guided_by(exact(None), log_likelihood, 1.0, AB, range(1000))
    rng = torch.Generator().manual_seed(0)
    for t in range(1000):
        k = torch.randint(3, (16,), generator=rng)
        x0 = MEANS[k] + STDS[k, None] * torch.randn(16, 2, generator=rng, dtype=torch.float64)
        x_t = math.sqrt(AB[t]) * x0 + math.sqrt(1 - AB[t]) * torch.randn(16, 2, generator=rng, dtype=torch.float64)
        found, wanted = guided(x_t, t, Ports()).x0, exact(Y)(x_t, t, Ports()).x0
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
        assert not found.requires_grad


def test_a_guided_walk_is_the_conditional_walk_and_its_scale_is_that_of_the_papers_algorithm_2() -> None:
    steps = sampler_steps(SCHEDULE, 50, "trailing")
    start = RowRng(range(16)).normal(2).double()
    guided = guided_by(exact(None), log_likelihood, 1.0, AB, AB)
    found = ddim(guided, start, Ports(), steps, eta=0.0, rng=RowRng(range(16)))
    wanted = ddim(exact(Y), start, Ports(), steps, eta=0.0, rng=RowRng(range(16)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)

    t, scale = 400, 3.0
    x = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_likelihood(x, t).sum(), x)
    x0 = exact(None)(start, t, Ports()).x0
    eps = (start - math.sqrt(AB[t]) * x0) / math.sqrt(1 - AB[t]) - scale * math.sqrt(1 - AB[t]) * gradient
    by_the_paper = (start - math.sqrt(1 - AB[t]) * eps) / math.sqrt(AB[t])
    ours = guided_by(exact(None), log_likelihood, scale, AB, AB)(start, t, Ports()).x0
    torch.testing.assert_close(ours, by_the_paper, rtol=0, atol=1e-12)


def test_an_ancestral_mean_moves_by_nearly_what_algorithm_1_moves_it_by() -> None:
    """It moves by s beta / sqrt(alpha) grad; ADM by s V grad, with V = beta-tilde here."""
    t, scale = 500, 2.0
    step = Step(t, AB[t], AB[t - 1])
    x = RowRng(range(16)).normal(2).double()
    moved = ancestral(
        guided_by(exact(None), log_likelihood, scale, AB, AB), x, Ports(), (step,), rng=RowRng(range(16))
    ) - ancestral(exact(None), x, Ports(), (step,), rng=RowRng(range(16)))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(log_likelihood(x, t).sum(), x)
    ratio = step.beta / math.sqrt(1 - step.beta) / step.beta_tilde
    torch.testing.assert_close(moved, ratio * scale * step.beta_tilde * gradient, rtol=0, atol=1e-8)
    assert ratio == pytest.approx(1.0, abs=0.02)


def test_an_interval_of_noise_says_at_which_times_guidance_acts() -> None:
    steps = sampler_steps(SCHEDULE, 1000, "trailing")
    some = times_within(steps, (0.5, 2.0))
    noise = {t: math.sqrt((1 - ab) / ab) for t, ab in AB.items()}
    assert some == {t for t in AB if 0.5 < noise[t] <= 2.0}
    assert 0 < len(some) < 1000
    assert times_within(steps, (noise[300], noise[301])) == {301}
    assert times_within(steps, None) == set(AB)


def test_outside_the_interval_every_guidance_leaves_the_guess_as_it_is() -> None:
    rows: list[int] = []

    def told(x_t: Tensor, t: int, ports: Ports) -> Denoised:
        assert ports.vector is not None
        rows.append(len(x_t))
        return Denoised(x_t + ports.vector, None)

    def refuse(x_t: Tensor, t: int) -> Tensor:
        raise AssertionError

    x, one = torch.zeros(2, 1), Ports(vector=torch.ones(2, 1))
    both = one.beside(Ports(vector=torch.zeros(2, 1)))
    free = classifier_free(told, 2.0, {7})
    assert free(x, 6, both).x0.tolist() == [[1.0], [1.0]]
    assert free(x, 7, both).x0.tolist() == [[3.0], [3.0]]
    assert rows == [2, 4], "one conditional pass, then both halves"
    auto = autoguided(told, lambda x_t, _: Denoised(x_t + 0.5, None), 2.0, {7})
    assert [auto(x, t, one).x0[0, 0].item() for t in (6, 7)] == [1.0, 2.0]
    assert guided_by(told, refuse, 2.0, AB, {7})(x, 6, one).x0.tolist() == [[1.0], [1.0]]


class Pull(Guide):
    """log p grows along the first axis, for rows with a class."""

    field = "class"

    def log_likelihood(self, x_t: Tensor, t: int, y: Tensor) -> Tensor:  # noqa: ARG002
        return torch.where(y < 0, 0.0, x_t[:, 0])


def rdm(*, drop_prob: float = 0.1, kind: str = "none") -> Diffusion:
    model = build_rdm(RdmConfig.tiny().model_copy(update={"conditions": conditions(kind, drop_prob=drop_prob)}), 3)
    randomize(model)
    return model.eval()


def options(**changes: object) -> DiffusionSampling:
    return DiffusionSampling.model_validate(DiffusionSampling.tiny().model_dump() | changes)


def test_a_generator_follows_a_guide_only_where_there_is_a_class() -> None:
    model = rdm()
    plain = model.sample({}, options(), RowRng([1, 2]))
    model.guide = Pull()
    followed = options(guide={"scale": 0.5})
    for sampler in ("ddim", "ancestral", "dpm_solver_2m"):
        how = options(sampler=sampler)
        by_class = how.model_copy(update={"guide": GuideOptions(scale=0.5)})
        before = model.sample({}, how, RowRng([1, 2]))
        after = model.sample({"class": torch.tensor([0, -1])}, by_class, RowRng([1, 2]))
        assert after[0, 0] > before[0, 0]
        assert torch.equal(after[1], before[1])
        assert not after.requires_grad
    never = options(guide={"scale": 0.5, "interval": [1000.0, 1001.0]})
    assert torch.equal(model.sample({"class": torch.tensor([0, 0])}, never, RowRng([1, 2])), plain)
    with pytest.raises(ConfigError, match="needs the class"):
        model.sample({}, followed, RowRng([1, 2]))
    model.guide = None
    with pytest.raises(ConfigError, match=r"there is none[\s\S]*section guide"):
        model.sample({"class": torch.tensor([0, 0])}, followed, RowRng([1, 2]))


@pytest.mark.parametrize("kind", ["none", "class", "cluster"])
def test_autoguidance_pushes_away_from_the_earlier_state_under_the_same_condition(kind: str) -> None:
    model, weak = rdm(kind=kind), rdm(kind=kind)
    randomize(weak, seed=5)
    how = options(steps=1)  # one ddim step ends on the guess
    strong_guess, weak_guess = (one.sample({}, how, RowRng([3, 4])) for one in (model, weak))
    guided = how.model_copy(update={"autoguidance": 1.5})
    with pytest.raises(ConfigError, match=r"earlier state[\s\S]*set earlier"):
        model.sample({}, guided, RowRng([3, 4]))
    model.earlier = weak
    found = model.sample({}, guided, RowRng([3, 4]))
    torch.testing.assert_close(found, strong_guess + 1.5 * (strong_guess - weak_guess))
    none = guided.model_copy(update={"guidance_interval": (1000.0, 1001.0)})
    assert torch.equal(model.sample({}, none, RowRng([3, 4])), strong_guess)


@pytest.mark.parametrize(
    ("changes", "rows"),
    [({}, [2] * 4), ({"guidance": 1.0}, [4] * 4), ({"guidance": 1.0, "guidance_interval": [0.1, 20.0]}, [2, 4, 4, 2])],
)
def test_guidance_costs_a_second_half_only_where_it_acts(
    changes: dict[str, object], rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = rdm(kind="class"), list[int]()
    forward = model.net.forward
    monkeypatch.setattr(model.net, "forward", lambda x, *rest: (seen.append(len(x)), forward(x, *rest))[1])
    model.sample({"class": torch.tensor([0, 1])}, options(spacing="linspace", **changes), RowRng([0, 1]))
    assert seen == rows


def test_two_ways_away_from_a_weaker_guess_are_refused_and_so_is_an_empty_interval() -> None:
    model = rdm(kind="class")
    model.earlier = rdm(kind="class")
    with pytest.raises(ConfigError, match="two different guesses"):
        model.sample({}, options(guidance=1.0, autoguidance=1.0), RowRng([0]))
    for interval in ([2.0, 1.0], [-1.0, 1.0], [1.0, 1.0]):
        with pytest.raises(ValueError, match="begins at 0 or above and ends higher"):
            options(guidance_interval=interval)


def test_options_that_are_off_are_not_written() -> None:
    assert list(DiffusionSampling.tiny().model_dump()) == ["kind", "sampler", "steps", "spacing", "eta", "guidance"]
    some = options(guide={"scale": 2.0}, guidance_interval=[0.1, 2.0])
    assert DiffusionSampling.model_validate(some.model_dump(mode="json")) == some


def test_the_earlier_state_is_the_averaged_one_of_its_step() -> None:
    trainable = GeneratorTrainable(rdm(), EmaConfig.tiny(), earlier=0.5)
    assert trainable.ema is not None
    assert trainable.earlier is not None
    states = []
    for step in range(1, 5):
        with torch.no_grad():
            for parameter in trainable.generator.parameters():
                parameter.add_(1.0)
        trainable.after_step(step, 4)
        states.append({name: one.clone() for name, one in trainable.result.state_dict().items()})
    kept = trainable.earlier.state_dict()
    assert all(torch.equal(kept[name], states[1][name]) for name in kept)
    assert not any(p.requires_grad for p in trainable.earlier.parameters())
    assert not torch.equal(kept["net.input_proj.weight"], states[3]["net.input_proj.weight"])
