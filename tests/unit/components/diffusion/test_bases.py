"""Base distributions: the shifted process against formulas in the data's coordinates, fitting, and choosing."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from components.conditions.clustering import kmeans
from components.conditions.config import VectorConfig
from components.conditions.container import Conditions
from components.conditions.ports import Ports
from components.diffusion.bases.config import GaussiansConfig, NormalConfig
from components.diffusion.bases.gaussians import Gaussians
from components.diffusion.bases.moments import described, moments
from components.diffusion.network import Network
from components.diffusion.process import Frame, alpha_bars, sampler_steps
from components.diffusion.samplers import Denoised, ancestral
from components.diffusion.schedule import ScheduleConfig, Spacing
from components.errors import ConfigError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.generators.files import save_generator
from components.generators.sampling import DiffusionSampling
from components.rdm import RdmConfig, load_rdm
from components.rng import BatchRng, RowRng
from components.target import EventSpec
from tests.support.folders import FolderArtifact, randomize
from tests.support.generators import BY_CLASS, PIXEL, Rows, build_rdm

D = 8
LINEAR = ScheduleConfig(kind="linear", n_times=1000)
AB = alpha_bars(LINEAR)
TEXT = FieldSpec(name="text", dtype="float32", shape=(D,), nullable=True)
READS_TEXT = VectorConfig(kind="vector", field="text", port="vector", drop_prob=0.1, missing="null")
TINY = RdmConfig.tiny()


def gaussians(**changes: Any) -> GaussiansConfig:
    return GaussiansConfig.model_validate(GaussiansConfig.tiny().model_dump() | changes)


def config(*conditions: Any, **changes: Any) -> RdmConfig:
    given = {"conditions": conditions or (), "base": gaussians(**changes)}
    return RdmConfig.model_validate(TINY.model_dump() | given)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def number(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


class DoubleRng(RowRng):
    def normal(self, *shape: int) -> Tensor:
        return super().normal(*shape).double()


class Bent(Network):
    """Some function of x_t, t and the component, in float64."""

    def __init__(self, answer: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__(vector_width=None)
        self.seen: list[Tensor] = []
        self.answer = answer or (lambda x, t, c: torch.tanh(x * (1 + t / 500) + c[:, None] / 3))

    def time_vectors(self, t: Tensor) -> Tensor:
        return t.double()[:, None]

    def forward(self, x_t: Tensor, time: Tensor, ports: Ports) -> Tensor:
        component = torch.zeros(len(x_t), dtype=torch.int64) if ports.component is None else ports.component
        self.seen.append(component)
        return self.answer(x_t, time, component)


def diffusion(network: Network, base: Gaussians | None, prediction: str = "x0") -> Diffusion:
    made = RdmConfig.model_validate(TINY.model_dump() | {"prediction": prediction, "schedule": LINEAR.model_dump()})
    spec = EventSpec(space="representations", shape=(D,), dtype="float32", n_codes=None)
    data = GeneratorData(target=PIXEL, dim=D, classes=None)
    return Diffusion(made, data, spec=spec, network=network, conditions=Conditions((), network, ()), base=base).double()


def random_base(k: int = 4, **changes: Any) -> Gaussians:
    base = Gaussians(gaussians(k=k, **changes), dim=D, fields=()).double()
    base.centroids.copy_(2 * normal(k, D))
    base.spread.copy_(0.1 + normal(k, D, seed=1).square())
    return base


def test_the_closed_form_is_what_single_transitions_come_to() -> None:
    """Transitions N(sqrt(alpha) z + (1 - sqrt(alpha)) mu, beta S^2), one after the other, in mean and variance."""
    z0, mu, s = 0.7, -1.3, 0.4
    mean, variance = z0, 0.0
    before = 1.0
    for ab in AB.tolist():
        alpha = ab / before
        mean = math.sqrt(alpha) * mean + (1 - math.sqrt(alpha)) * mu
        variance = alpha * variance + (1 - alpha) * s**2
        before = ab
        frame = Frame(number(mu), number(s))
        closed = float(frame.placed(math.sqrt(ab) * frame.standard(number(z0))))
        assert mean == pytest.approx(closed, abs=1e-12)
        assert variance == pytest.approx((1 - ab) * s**2, abs=1e-12)


def test_a_step_is_bayes_posterior() -> None:
    """q(z_prev | z_t, z0) as the product of the two Gaussians that it is, for steps of the respaced chain."""

    class Fixed(RowRng):
        def __init__(self, value: float) -> None:
            super().__init__([0])
            self.value = value

        def normal(self, *shape: int) -> Tensor:
            return torch.full((1, *shape), self.value, dtype=torch.float64)

    mu, s, z0, z_t = -1.3, 0.4, 0.7, 0.2
    frame = Frame(number(mu), number(s))
    for step in sampler_steps(LINEAR, 7, "trailing")[:-1]:
        alpha, ab_prev = step.ab / step.ab_prev, step.ab_prev
        m1, v1 = math.sqrt(ab_prev) * z0 + (1 - math.sqrt(ab_prev)) * mu, (1 - ab_prev) * s**2
        shift, v2 = (1 - math.sqrt(alpha)) * mu, (1 - alpha) * s**2
        precision = 1 / v1 + alpha / v2
        mean = (m1 / v1 + math.sqrt(alpha) * (z_t - shift) / v2) / precision

        def denoise(x: Tensor, t: int, ports: Ports) -> Denoised:
            return Denoised(frame.standard(torch.full_like(x, z0)), None)

        start = frame.standard(number(z_t))
        walked = [float(frame.placed(ancestral(denoise, start, Ports(), [step], rng=Fixed(n)))) for n in (0.0, 1.0)]
        assert walked[0] == pytest.approx(mean, abs=1e-12)
        assert walked[1] - walked[0] == pytest.approx(precision**-0.5, abs=1e-12)


@pytest.mark.parametrize("how", ["ddim", "ancestral", "dpm_solver_2m"])
def test_one_standard_gaussian_is_the_normal_base_to_the_bit(how: Any) -> None:
    shifted = build_rdm(config(k=1, index=False))
    plain = build_rdm(TINY)
    randomize(plain)
    shifted.load_state_dict(plain.state_dict(), strict=False)
    options = DiffusionSampling(kind="diffusion", sampler=how, steps=7, spacing="trailing", eta=0.5, guidance=0.0)
    assert torch.equal(*(one.sample({}, options, RowRng([1, 2])) for one in (shifted, plain)))
    batch = {"representation": normal(5, D).float()}
    assert torch.equal(*(one.loss(batch, BatchRng(3, 5)) for one in (shifted, plain)))


def by_hand(
    z: Tensor, mu: Tensor, s: Tensor, network: Bent, c: Tensor, rng: DoubleRng, how: DiffusionSampling
) -> Tensor:
    """Section by section in the data's coordinates: z0 predicted, eps from it, DDIM or the posterior."""
    for step in sampler_steps(LINEAR, how.steps, how.spacing):
        ab, prev = step.ab, step.ab_prev
        z0 = network.answer(z, torch.tensor([[float(step.t)]]).double(), c)
        if how.sampler == "ddim":
            eps = ((z - mu) - math.sqrt(ab) * (z0 - mu)) / s / math.sqrt(1 - ab)
            sigma = how.eta * math.sqrt((1 - prev) / (1 - ab)) * math.sqrt(1 - ab / prev)
            z = mu + math.sqrt(prev) * (z0 - mu) + math.sqrt(max(0.0, 1 - prev - sigma**2)) * s * eps
            z = z + sigma * s * rng.normal(D) if sigma > 0 else z
        else:
            beta, alpha = 1 - ab / prev, ab / prev
            c1, c2 = beta * math.sqrt(prev) / (1 - ab), (1 - prev) * math.sqrt(alpha) / (1 - ab)
            c3 = beta * (1 - math.sqrt(prev)) / (1 - ab)
            z = c1 * z0 + c2 * (z - (1 - math.sqrt(alpha)) * mu) + c3 * mu
            if prev < 1:
                z = z + math.sqrt(beta * (1 - prev) / (1 - ab)) * s * rng.normal(D)
    return z


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading", "reference"])
@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_the_chain_in_the_datas_coordinates(sampler: Any, spacing: Spacing) -> None:
    base, network = random_base(kappa=1.5), Bent()
    how = DiffusionSampling(kind="diffusion", sampler=sampler, steps=10, spacing=spacing, eta=0.7, guidance=0.0)
    seeds = list(range(6))
    found = diffusion(network, base).sample({}, how, DoubleRng(seeds))
    rng = DoubleRng(seeds)
    c = (rng.uniform() * 4).long()
    assert len(set(c.tolist())) > 1
    mu, s = base.centroids[c], 1.5 * base.spread[c]
    expected = by_hand(mu + s * rng.normal(D), mu, s, network, c, rng, how)
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=1e-6)


def test_a_row_keeps_its_component_along_the_chain_and_under_guidance() -> None:
    base = random_base()
    network = Bent()
    how = DiffusionSampling(kind="diffusion", sampler="dpm_solver_2m", steps=9, spacing="trailing", eta=0, guidance=0)
    diffusion(network, base).sample({}, how, DoubleRng(range(20)))
    assert len(network.seen) == 9
    assert all(torch.equal(seen, network.seen[0]) for seen in network.seen)
    both = Ports(component=network.seen[0]).beside(Ports(component=network.seen[0]))
    assert both.component is not None
    assert torch.equal(both.component[:20], both.component[20:])


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_network_that_knows_the_noise_has_no_loss_and_gives_the_data_back(prediction: str) -> None:
    base, z0 = random_base(), normal(6, D, seed=3)
    answers: list[Tensor] = []
    model = diffusion(Bent(lambda *_: answers[0]), base, prediction)
    with torch.no_grad():
        c = base.of_rows(z0, {})
        assert c is not None
        assert len(set(c.tolist())) > 1
        rng = BatchRng(5, 6)
        t = rng.integers(1000)
        ab, eps = model.process.alpha_bar(t, z0), rng.normal(D).double()
        w0 = (z0 - base.centroids[c]) / base.spread[c]
        answers.append(eps if prediction == "eps" else ab.sqrt() * eps - (1 - ab).sqrt() * w0)
        assert float(model.loss({"representation": z0}, BatchRng(5, 6)).max()) < 1e-12
        step = sampler_steps(LINEAR, 1000, "trailing")[400]
        ab = model.process.ab[step.t]
        answers[0] = eps if prediction == "eps" else ab.sqrt() * eps - (1 - ab).sqrt() * w0
        guess = model.denoiser((step,))(ab.sqrt() * w0 + (1 - ab).sqrt() * eps, step.t, Ports(component=c)).x0
        torch.testing.assert_close(model.process.placed(guess, c), z0)


def test_the_loss_is_measured_where_the_data_lives_and_p2_weighs_it() -> None:
    z = normal(40, D, seed=4).float() + 3
    for weighting in ("plain", "p2"):
        made = config(k=3, kappa=2.0).model_copy(update={"weighting": weighting})
        rdm = build_rdm(made)
        randomize(rdm)
        rdm.fit(Rows({"representation": z}), 0)
        base = rdm.process.base
        assert isinstance(base, Gaussians)
        c, rng = base.owner(z[:6]), BatchRng(5, 6)
        t = rng.integers(1000)
        ab = alpha_bars(TINY.schedule)[t].float()[:, None]
        mu, s = base.centroids[c], 2 * base.spread[c]
        z_t = ab.sqrt() * z[:6] + (1 - ab.sqrt()) * mu + (1 - ab).sqrt() * s * rng.normal(D)
        guess = rdm.net(z_t, rdm.net.time_vectors(t), Ports(component=c))
        expected = (guess - z[:6]).square().mean(1) * (1 if weighting == "plain" else 1 - ab[:, 0])
        torch.testing.assert_close(rdm.loss({"representation": z[:6]}, BatchRng(5, 6)), expected)


def test_saved_and_loaded_draws_the_same(tmp_path: Path) -> None:
    rdm, out = build_rdm(config(k=3, learnable=True)), FolderArtifact(tmp_path)
    randomize(rdm)
    rdm.fit(Rows({"representation": 5 + normal(30, D).float()}), 0)
    save_generator(rdm, out)
    loaded = load_rdm(out)
    assert loaded.config == rdm.config
    state, again = rdm.process.base.state_dict(), loaded.process.base.state_dict()  # type: ignore[union-attr, operator]
    assert {"mean", "log_std", "centroids", "spread", "choice.weight"} <= set(state)
    assert all(torch.equal(state[name], again[name]) for name in state)
    how = DiffusionSampling.tiny()
    assert torch.equal(rdm.sample({}, how, RowRng(range(9))), loaded.sample({}, how, RowRng(range(9))))


def test_the_normal_base_leaves_params_and_files_as_they_were() -> None:
    assert "base" not in TINY.model_dump(mode="json")
    explicit = RdmConfig.model_validate(TINY.model_dump() | {"base": {"kind": "normal"}})
    assert explicit == TINY
    assert explicit.base == NormalConfig(kind="normal")
    assert not [name for name in build_rdm(TINY).state_dict() if name.startswith("process.")]
    assert RdmConfig.model_validate(config(k=3).model_dump(mode="json")) == config(k=3)


def test_learnable_gaussians_are_moved_by_their_own_loss_alone() -> None:
    z = 2 + normal(60, D).float()
    rdm = build_rdm(config(k=3, learnable=True))
    randomize(rdm)
    rdm.fit(Rows({"representation": z}), 0)
    base: Any = rdm.process.base
    component, batch = base.owner(z), {"representation": z}
    rdm.loss(batch, BatchRng(1, 60)).sum().backward()
    grads = [base.mean.grad.clone(), base.log_std.grad.clone()]
    base.mean.grad = base.log_std.grad = None
    rng = BatchRng(1, 60)
    rng.integers(1000), rng.normal(D)
    base.loss(z, component, batch, rng, 1.0).sum().backward()
    assert all(bool(g.any()) for g in grads)
    torch.testing.assert_close(grads, [base.mean.grad, base.log_std.grad])  # nothing comes from the denoiser


def test_their_loss_raises_the_cosine_of_start_and_data() -> None:
    z = torch.nn.functional.normalize(0.5 * normal(200, D).float() + torch.eye(D)[torch.arange(200) % 4], dim=1)
    base = Gaussians(gaussians(k=4, learnable=True), dim=D, fields=())
    base.fit(z, {}, 0)
    component = base.owner(z)

    def cosine() -> float:
        frame = base.frame(component)
        start = frame.placed(BatchRng(9, 200).normal(D))
        return float(torch.nn.functional.cosine_similarity(start, z, dim=1).mean())

    before = cosine()
    optimizer = torch.optim.Adam(base.parameters(), lr=0.3)
    for step in range(30):
        optimizer.zero_grad()
        moved = base.loss(z, component, {}, BatchRng(step, 200), 1.0)
        assert moved is not None
        moved.mean().backward()
        optimizer.step()
    assert cosine() > before + 0.03


@pytest.mark.parametrize("spherical", [True, False])
def test_fitting_finds_the_clusters_their_deviations_and_frequencies(spherical: bool) -> None:
    centers = torch.cat([torch.eye(D)[:3] * 4, -torch.eye(D)[:1] * 4]).double()
    owner = torch.tensor([0] * 200 + [1] * 100 + [2] * 80 + [3] * 20)
    noise = torch.where(torch.arange(D) < 4, 0.3, 0.1)
    z = centers[owner] + noise * normal(400, D, seed=2)
    z = torch.nn.functional.normalize(z, dim=1) * 4 if spherical else z
    base = Gaussians(gaussians(k=4), dim=D, fields=())
    base.fit(z.float(), {}, 0)
    assert bool(base.spherical) == spherical
    found = base.owner(z.float())
    place = [int(found[(owner == c).nonzero()[0]]) for c in range(4)]
    assert sorted(place) == [0, 1, 2, 3]
    assert torch.equal(torch.tensor(place)[owner], found)
    assert base.choice.weight[place].tolist() == pytest.approx([0.5, 0.25, 0.2, 0.05])
    torch.testing.assert_close(base.centroids[place[0]].double(), z[:200].mean(0), atol=1e-5, rtol=0)
    if not spherical:
        torch.testing.assert_close(base.spread.double(), noise.double().expand(4, -1), atol=0.07, rtol=0)
    told = described(z, found, 4)
    assert told["base_smallest"] == 20
    assert told["base_explained_variance"] > 0.8
    assert told["base_occupancy"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in (0.5, 0.25, 0.2, 0.05))))


def test_small_and_equal_clusters_have_deviations_and_too_many_are_refused() -> None:
    z = torch.cat([torch.zeros(20, D), torch.full((1, D), 9.0)]) + 0.1 * torch.cat([normal(20, D), normal(1, D)])
    assert float(moments(z, 2, seed=0).std.min()) > 0.02
    assert float(moments(torch.ones(5, D), 5, seed=0).std.min()) > 0
    one = moments(normal(50, D), 1, seed=0)
    torch.testing.assert_close(one.mean[0], normal(50, D).mean(0))
    torch.testing.assert_close(one.std[0], normal(50, D).std(0, correction=0))
    with pytest.raises(ConfigError, match=r"more Gaussians than training rows(.|\n)*k: 22(.|\n)*at most 21"):
        build_rdm(config(k=22)).fit(Rows({"representation": z.float()}), 0)
    centroids = kmeans(torch.tensor([[-1.0], [1.0], [9.0], [11.0]]), 2, seed=0)
    assert sorted(centroids[:, 0].tolist()) == [0, 10]


def shares(components: Tensor | None, k: int) -> list[float]:
    assert components is not None
    return (torch.bincount(components, minlength=k) / len(components)).tolist()


def clustered(n: int, share: float) -> tuple[Tensor, Tensor]:
    """Rows of two clusters, and which."""
    which = (torch.arange(n) >= share * n).long()
    return torch.where(which[:, None] == 0, 3.0, -3.0) * torch.eye(D)[0] + 0.1 * normal(n, D).float(), which


def test_components_are_sampled_as_often_as_in_training() -> None:
    z, _ = clustered(100, 0.7)
    rdm = build_rdm(config(k=2))
    rdm.fit(Rows({"representation": z}), 0)
    base: Any = rdm.process.base
    data = shares(base.of_rows(z, {}), 2)
    assert shares(base.sampled({}, RowRng(range(600))), 2) == pytest.approx(data, abs=0.05)
    assert torch.equal(base.sampled({}, RowRng(range(9)))[4:6], base.sampled({}, RowRng([4, 5])))


def test_with_a_class_the_component_is_sampled_within_it() -> None:
    z, which = clustered(100, 0.5)
    y = torch.where(torch.arange(100) % 4 == 0, 0, 1 + which)  # class 0 lies in both clusters, 1 and 2 in one each
    y = torch.where(torch.arange(100) % 10 == 9, -1, y)
    rdm = build_rdm(config(*BY_CLASS, k=2, choice={"by": "class"}), 4)
    rdm.fit(Rows({"representation": z, "class": y}), 0)
    base: Any = rdm.process.base
    first = int(base.owner(z[:1]))
    for label, share in ((0, 0.5), (1, 1.0), (2, 0.0), (3, 0.5), (-1, 0.5)):
        drawn = base.sampled({"class": torch.full((400,), label)}, RowRng(range(400)))
        assert shares(drawn, 2)[first] == pytest.approx(share, abs=0.07), label
    seen: list[Tensor] = []
    rdm.net.register_forward_pre_hook(lambda _, args: seen.append(args[2].component))
    rdm.sample({}, DiffusionSampling.tiny(), RowRng(range(40)))  # the class is sampled once, for both
    rng = RowRng(range(40))
    labels = torch.bucketize(rng.uniform().double(), rdm.class_frequencies.cumsum(0)[:-1], right=True)  # type: ignore[union-attr]
    assert torch.equal(seen[0], base.sampled({"class": labels}, rng))


def with_text(choice: str, field: FieldSpec = TEXT, **changes: Any) -> Diffusion:
    made = config(READS_TEXT, choice={"by": choice, "field": "text"}, **changes)
    return made.build(GeneratorData(target=PIXEL, dim=D, classes=None, more=(field,)))


def test_a_text_of_the_same_space_chooses_in_training_and_sampling_alike() -> None:
    z, which = clustered(60, 0.5)
    text = torch.where(which[:, None] == 0, 1.0, -1.0) * torch.eye(D)[0] + 0.05
    text[5] = 0
    rdm = with_text("nearest", k=2)
    rdm.fit(Rows({"representation": z, "text": text}), 0)
    base: Any = rdm.process.base
    told = {"text": text.flip(0), "text.mask": torch.arange(60) != 54}  # row 54 has none
    trained = base.of_rows(z, told)
    assert torch.equal(trained[:54] == trained[0], which.flip(0)[:54] == which[-1])
    assert trained[54] == base.owner(z[54:55])
    assert torch.equal(base.sampled(told, RowRng(range(60)))[:54], trained[:54])
    assert rdm.loss({"representation": z, **told}, BatchRng(0, 60)).isfinite().all()
    drawn = base.sampled({}, RowRng(range(400)))
    assert shares(drawn, 2) == pytest.approx(base.choice.weight.tolist(), abs=0.07)


def test_a_text_of_another_space_predicts_the_component() -> None:
    z, which = clustered(80, 0.5)
    text = normal(80, D, seed=6).float()
    text[:, 3] = torch.where(which == 0, 2.0, -2.0)
    rdm = with_text("predicted", k=2)
    rdm.fit(Rows({"representation": z, "text": text}), 0)
    base: Any = rdm.process.base
    optimizer = torch.optim.Adam(base.parameters(), lr=0.2)
    batch = {"representation": z, "text": text, "text.mask": torch.arange(80) != 7}
    for step in range(60):
        optimizer.zero_grad()
        rdm.loss(batch, BatchRng(step, 80)).mean().backward()
        optimizer.step()
    assert (base.sampled(batch, RowRng(range(80))) == base.owner(z)).float().mean() > 0.95


def test_mistakes_are_named() -> None:
    with pytest.raises(ValidationError, match=r"base reads text, which is no condition"):
        config(choice={"by": "nearest", "field": "text"})
    with pytest.raises(ConfigError, match=r"does not lie in the space(.|\n)*dimension 5(.|\n)*by: predicted"):
        with_text("nearest", field=TEXT.model_copy(update={"shape": (5,)}))


K, MODES, POINT = 8, 4, 0.03
"""Acceptance: clusters, modes of each, deviation of a mode's points; 16 dimensions."""


def few_steps(base_k: int, steps: int, seed: int, *, standardized: bool = False) -> tuple[float, float]:
    """Distance to the nearest mode (data: 1) and total variation of the modes' frequencies, with an exact denoiser.

    It knows the cluster. `standardized`: every cluster starts from one Gaussian, that of all rows.
    """
    rng = torch.Generator().manual_seed(seed)
    d, n = 16, 2000
    centers = 1 + 0.35 * torch.randn(K, 1, d, generator=rng) + 0.12 * torch.randn(K, MODES, d, generator=rng)
    modes = centers.reshape(-1, d).double()
    which = torch.randint(len(modes), (n,), generator=rng)
    z = modes[which] + POINT * torch.randn(n, d, generator=rng)
    base = Gaussians(gaussians(k=base_k), dim=d, fields=()).double()
    base.fit(z, {}, seed)
    home = base.owner(modes)
    if standardized:
        one = moments(z, 1, seed=seed)
        base.centroids.copy_(one.mean.expand(base_k, d))
        base.spread.copy_(one.std.expand(base_k, d))

    def exact(z_t: Tensor, time: Tensor, c: Tensor) -> Tensor:
        ab = AB[int(time)]
        mu, s = base.frame(c)
        mean = ab.sqrt() * modes + (1 - ab.sqrt()) * mu[:, None]  # (n, modes, d)
        variance = (ab * POINT**2 + (1 - ab) * s.square())[:, None]
        gap = z_t[:, None] - mean
        logits = -0.5 * (gap.square() / variance).sum(2)
        weight = logits.masked_fill(home != c[:, None], -torch.inf).softmax(1)
        guess = modes + ab.sqrt() * POINT**2 / variance * gap
        return (weight[:, :, None] * guess).sum(1)

    made = RdmConfig.model_validate(TINY.model_dump() | {"dim": d, "schedule": LINEAR.model_dump()})
    spec = EventSpec(space="representations", shape=(d,), dtype="float32", n_codes=None)
    data, network = GeneratorData(target=PIXEL, dim=d, classes=None), Bent(exact)
    model = Diffusion(made, data, spec=spec, network=network, conditions=Conditions((), network, ()), base=base)
    how = DiffusionSampling(kind="diffusion", sampler="ddim", steps=steps, spacing="linspace", eta=0, guidance=0)
    drawn = model.double().sample({}, how, DoubleRng(range(n))).double()
    distance, mode = torch.cdist(drawn, modes).min(1)
    gap = (torch.bincount(mode, minlength=len(modes)) - torch.bincount(which, minlength=len(modes))) / n
    return float(distance.mean()) / (POINT * d**0.5), float(gap.abs().sum() / 2)


def test_with_an_exact_denoiser_several_gaussians_need_four_steps() -> None:
    many, one = few_steps(K, 4, 0), few_steps(1, 4, 0)
    assert many[0] < 1.3
    assert many[1] < 0.1
    assert one[0] > 1.6
    assert one[1] > 0.12
    told = few_steps(K, 4, 0, standardized=True)  # so the gain is not that of knowing the cluster
    assert told[0] > 1.6
    assert told[1] > 0.12
    assert max(few_steps(K, 16, 0)[1], few_steps(1, 16, 0)[1]) < 0.12
