"""Guides: ADM's classifier tensor by tensor, what training makes of one, and the generators that one does not fit."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.schedule import ScheduleConfig
from components.errors import ConfigError
from components.generators.config import GeneratorData
from components.guides.base import put_beside
from components.guides.classifier import Classifier
from components.guides.config import MlpGuideConfig, UNetGuideConfig
from components.guides.training import GuideTrainable, accuracies, hits_by_quarter
from components.nn.spatial import AttentionPool
from components.nn.vit import seeded_init
from components.pixels.dit import DitConfig
from components.pixels.mage import MageConfig
from components.pixels.unet import HeadWidth
from components.rdm import RdmConfig
from components.rng import BatchRng
from components.target import TargetSpec
from components.training.config import OptimConfig
from components.training.optim import adamw
from tests.support.folders import randomize
from tests.support.generators import PIXEL, Rows, build_rdm

SCHEDULE = ScheduleConfig(kind="cosine", n_times=1000)
DATA = GeneratorData(target=PIXEL, dim=8, classes=("a", "b", "c"))
MLP, UNET = MlpGuideConfig.tiny(), UNetGuideConfig.tiny()


@pytest.mark.parametrize(
    ("px", "multipliers", "n_blocks", "parameters"),
    [
        (64, (1, 2, 3, 4), 4, 65_438_568),
        (128, (1, 1, 2, 3, 4), 2, 42_568_040),
        (256, (1, 1, 2, 2, 4, 4), 2, 54_096_360),
        (512, (0.5, 1, 1, 2, 2, 4, 4), 2, 54_448_360),
    ],
)
def test_the_papers_classifiers_have_their_published_sizes(
    px: int, multipliers: Any, n_blocks: int, parameters: int
) -> None:
    config = UNetGuideConfig(
        kind="unet_encoder",
        width=128,
        multipliers=multipliers,
        n_blocks=n_blocks,
        attention_sides=(32, 16, 8),
        heads=HeadWidth(width=64),
        groups=32,
        schedule=SCHEDULE,
        latents="as_stored",
    )
    target = TargetSpec(space="pixels", shape=(3, px, px), dtype="uint8", n_codes=None, image_px=px)
    with torch.device("meta"):
        guide = config.build(GeneratorData(target=target, dim=2, classes=tuple(map(str, range(1000)))))
    assert sum(p.numel() for p in guide.parameters()) == parameters
    names = {name.removeprefix("net.unet."): tuple(p.shape) for name, p in guide.named_parameters()}
    assert names["out.2.qkv_proj.weight"] == (3 * (width := names["out.0.weight"][0]), width, 1)
    assert names["out.2.positional_embedding"] == (width, 65)
    assert names["out.2.c_proj.bias"] == (1000,)
    assert {"time_embed.2.weight", "input_blocks.1.0.emb_layers.1.bias", "middle_block.1.proj_out.bias"} <= set(names)


def test_attention_pooling_is_the_mean_positions_attention() -> None:
    pool = AttentionPool(3, 4, 2, 5)
    randomize(pool)
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    rows = x.flatten(2)  # (b, c, n)
    rows = torch.cat([rows.mean(2, keepdim=True), rows], 2) + pool.positional_embedding
    qkv = torch.einsum("oc,bcn->bon", pool.qkv_proj.weight[:, :, 0], rows) + pool.qkv_proj.bias[:, None]
    mixed = []
    for head in range(2):
        q, k, v = (qkv[:, part * 4 + head * 2 : part * 4 + head * 2 + 2] for part in range(3))
        weights = (torch.einsum("bd,bdn->bn", q[:, :, 0], k) / math.sqrt(2)).softmax(1)
        mixed.append(torch.einsum("bn,bdn->bd", weights, v))
    expected = torch.cat(mixed, 1) @ pool.c_proj.weight[:, :, 0].T + pool.c_proj.bias
    torch.testing.assert_close(pool(x), expected)


@pytest.mark.parametrize("config", [MLP, UNET], ids=lambda config: config.kind)
def test_a_log_likelihood_is_one_of_a_distribution_and_nothing_pulls_without_a_class(config: Any) -> None:
    guide = config.build(DATA)
    randomize(guide)
    x = torch.randn(3, *guide.spec.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for t in (0, 500, 999):
        each = torch.stack([guide.log_likelihood(x, t, torch.full((3,), k)) for k in range(3)])
        torch.testing.assert_close(each.exp().sum(0), torch.ones(3))
        torch.testing.assert_close(each[1], guide.logits(x, torch.tensor([t] * 3)).log_softmax(1)[:, 1])
        (gradient,) = torch.autograd.grad(guide.log_likelihood(x, t, torch.tensor([0, -1, 2])).sum(), x)
        assert (gradient.flatten(1).abs().sum(1) > 0).tolist() == [True, False, True]


def test_its_pull_fades_with_the_signal() -> None:
    """A step from pure noise divides by sqrt(ab), which a cosine lets fall to 5e-5."""
    guide = MLP.model_copy(update={"schedule": SCHEDULE}).build(DATA)
    randomize(guide)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(guide.log_likelihood(x, 999, torch.tensor([0, 1, 2, 0])).sum(), x)
    assert float((gradient / guide.process.ab[999].sqrt()).abs().max()) < 10


CENTERS = torch.tensor([1.5, -1.5, 0.0])[:, None] * torch.ones(8) / math.sqrt(8)
STD = 0.5


def _exact(x_t: Tensor, ab: Tensor) -> Tensor:
    """log p(y | x_t) of three Gaussians of equal weight. Shapes: (b, 8), (b, 1) -> (b, 3)."""
    squares = (x_t[:, None] - ab.sqrt()[:, None] * CENTERS).square().sum(2)
    return (-squares / (2 * (ab * STD**2 + 1 - ab))).log_softmax(1)


def _rows(n: int, seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=rng)
    return {"representation": CENTERS[y] + STD * torch.randn(n, 8, generator=rng), "class": y}


def test_training_approaches_the_exact_posterior_and_noise_in_training_pays_where_there_is_noise() -> None:
    with seeded_init(0):
        guide = MlpGuideConfig(kind="residual_mlp", width=64, depth=2, time_dim=32, schedule=SCHEDULE).build(DATA)
    rows = _rows(2048, 0)
    guide.fit(Rows(rows), rows["class"])
    trainable = GuideTrainable(guide)
    optimizers = [adamw(named, OptimConfig.tiny()) for named in trainable.optimizer_parameters()]
    assert [sum(p.numel() for g in o.param_groups for p in g["params"]) for o in optimizers] == [
        sum(p.numel() for p in guide.parameters())
    ] * 2
    for step in range(400):
        at = torch.randint(2048, (128,), generator=torch.Generator().manual_seed(step))
        batch = {name: values[at] for name, values in rows.items()}
        for which, optimizer in enumerate(optimizers):
            optimizer.zero_grad()
            trainable(batch, BatchRng(step, 128), which)[0].backward()
            optimizer.step()
    held_out = _rows(1024, 1)
    by_quarter = {
        name: accuracies("q", hits_by_quarter(one, held_out, BatchRng(5, 1024), 2), 2048)
        for name, one in (("noisy", trainable.guide), ("clean", trainable.twin))
    }
    rng = torch.Generator().manual_seed(3)
    for quarter in range(4):
        t = torch.randint(250 * quarter, 250 * quarter + 250, (1024,), generator=rng)
        x_t = guide.process.noised(held_out["representation"], t, torch.randn(1024, 8, generator=rng))
        exact = _exact(x_t, guide.process.ab[t][:, None])
        best = float((exact.argmax(1) == held_out["class"]).float().mean())
        assert by_quarter["noisy"][f"q_q{quarter + 1}"] == pytest.approx(best, abs=0.05)
        found = guide.logits(x_t, t).log_softmax(1).detach()
        assert float((exact.exp() * (exact - found)).sum(1).mean()) < 0.05, "the divergence from the exact posterior"
    assert by_quarter["noisy"]["q_q3"] >= by_quarter["clean"]["q_q3"]
    assert guide.frequencies.sum() == pytest.approx(1.0)


def _representation_guide(**changes: Any) -> Classifier:
    data = DATA.model_copy(update=changes.pop("data", {}))
    return MLP.model_copy(update=changes).build(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"dim": 4}}, "of another size"),
        ({"data": {"classes": ("a", "b")}}, "of another classes"),
        ({"schedule": SCHEDULE}, "of another schedule"),
    ],
)
def test_a_guide_of_something_else_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    rdm = build_rdm(RdmConfig.tiny(), 3)
    rdm.data = GeneratorData(target=PIXEL, dim=8, classes=DATA.classes)
    put_beside(_representation_guide(), rdm)
    assert rdm.guide is not None
    with pytest.raises(ConfigError, match=message):
        put_beside(_representation_guide(**changes), rdm)


def test_scale_and_kind_of_the_generator_count() -> None:
    target = TargetSpec(space="latents", shape=(1, 8, 8), dtype="float32", n_codes=None, image_px=8)
    data = GeneratorData(target=target, dim=8, classes=DATA.classes)
    dit = DitConfig.tiny().model_copy(update={"latents": "standardized", "schedule": UNET.schedule}).build(data)
    guide = UNET.model_copy(update={"latents": "standardized"}).build(data)
    rows = {"target": 3 + 2 * torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))}
    dit.fit(
        Rows(
            rows
            | {
                "class": torch.zeros(50, dtype=torch.int64),
                "representation": torch.randn(50, 8, generator=torch.Generator().manual_seed(0)),
            }
        ),
        0,
    )
    with pytest.raises(ConfigError, match=r"another scale[\s\S]*guide.model.latents"):
        put_beside(guide, dit)
    guide.fit(Rows(rows), torch.arange(50) % 3)
    put_beside(guide, dit)
    torch.testing.assert_close(guide.std, dit.std)
    tokens = TargetSpec(space="tokens", shape=(4, 4), dtype="int32", n_codes=8, image_px=8)
    mage = MageConfig.tiny().build(GeneratorData(target=tokens, dim=8, classes=DATA.classes))
    with pytest.raises(ConfigError, match=r"samples tokens[\s\S]*kind: mage"):
        put_beside(guide, mage)
    with pytest.raises(ConfigError, match="stores tokens"):
        UNET.build(GeneratorData(target=tokens, dim=8, classes=DATA.classes))


def test_one_class_is_none() -> None:
    for classes in (None, ("a",)):
        with pytest.raises(ConfigError, match="too few"):
            MLP.build(GeneratorData(target=PIXEL, dim=8, classes=classes))
    with pytest.raises(ConfigError, match="fewer than two"):
        MLP.build(DATA).fit(Rows({}), torch.tensor([0, 0, -1]))
    assert UNET.build(DATA).net(torch.zeros(2, 1, 8, 8), torch.zeros(1, 32), Ports()).shape == (2, 3)
