"""The representation generator: its arithmetic, its conditions, its files, and that it learns a distribution."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as tf

from components.conditions.ports import Ports
from components.diffusion.process import alpha_bars
from components.errors import ConfigError, ShapeError, WeightsError
from components.generators.diffusion import Diffusion
from components.generators.files import save_generator
from components.generators.sampling import DiffusionSampling
from components.rdm import RdmConfig, load_rdm
from components.rng import BatchRng, RowRng, image_rng
from tests.support.folders import FolderArtifact, randomize
from tests.support.generators import BY_CLASS, Rows, build_rdm

TINY = RdmConfig.tiny()
LABELED = TINY.model_copy(update={"conditions": BY_CLASS})
HOW = DiffusionSampling.tiny()


def _rdm(config: RdmConfig = TINY, n_classes: int | None = 3) -> Diffusion:
    rdm = build_rdm(config, n_classes)
    randomize(rdm)
    return rdm


def _table(rdm: Diffusion) -> Any:
    return cast(Any, rdm.conditioner["class"]).table


def _guess(rdm: Diffusion, x_t: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
    x0: Tensor = rdm.net(x_t, rdm.net.time_vectors(t), Ports(vector=context))
    return x0


def _by_hand(weights: dict[str, Tensor], x: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
    """The network written out, one formula per line."""
    width = weights["input_proj.weight"].shape[0]

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, value: Tensor, eps: float) -> Tensor:
        return tf.layer_norm(value, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    angle = t[:, None] * 10000 ** (-torch.arange(width // 2) / (width // 2))
    time = linear("time_embed.2", tf.silu(linear("time_embed.0", torch.cat([angle.cos(), angle.sin()], 1))))
    h = linear("input_proj", x)
    for i in range(2):
        name = f"res_blocks.{i}"
        branch = linear(f"{name}.in_layers.2", tf.silu(norm(f"{name}.in_layers.0", h, 1e-5)))
        branch = branch + linear(f"{name}.emb_layers.1", tf.silu(time))
        if context is not None:
            branch = branch + linear(f"{name}.context_layers.1", tf.silu(context))
        h = h + linear(f"{name}.out_layers.3", tf.silu(norm(f"{name}.out_layers.0", branch, 1e-5)))
    return linear("out.2", tf.silu(norm("out.0", h, 1e-6)))


@pytest.mark.parametrize("config", [TINY, LABELED])
def test_the_network_is_the_published_arithmetic(config: RdmConfig) -> None:
    rdm = _rdm(config)
    weights = dict(rdm.net.state_dict())
    x, t = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 10, 500, 999])
    context = _table(rdm)(torch.tensor([0, 1, 2, 0, 1])) if config.conditions else None
    torch.testing.assert_close(_guess(rdm, x, t, context), _by_hand(weights, x, t, context), rtol=1e-4, atol=1e-5)


def test_loss_is_the_squared_error_of_the_clean_representation_per_row() -> None:
    rdm, z = _rdm(), torch.randn(6, 8, generator=torch.Generator().manual_seed(2))
    rng = BatchRng(5, 6)
    t = rng.integers(1000)
    ab = alpha_bars(TINY.schedule)[t].float()[:, None]
    x_t = ab.sqrt() * z + (1 - ab).sqrt() * rng.normal(8)
    expected = (_guess(rdm, x_t, t, None) - z).square().mean(1)
    torch.testing.assert_close(rdm.loss({"representation": z}, BatchRng(5, 6)), expected)


def test_every_parameter_gets_a_gradient() -> None:
    for config in (TINY, LABELED):
        rdm = build_rdm(config, 3)
        batch = {"representation": torch.randn(4, 8), "class": torch.tensor([0, 1, 2, 0])}
        rdm(batch, BatchRng(0, 4)).mean().backward()
        assert all(p.grad is not None for p in rdm.parameters())


def test_samples_depend_on_their_own_noise_alone() -> None:
    rdm = _rdm()
    many = rdm.sample({}, HOW, image_rng(0, 0, 6, stream="rdm"))
    assert many.shape == (6, 8)
    assert torch.equal(rdm.sample({}, HOW, image_rng(0, 0, 6, stream="rdm")), many)
    torch.testing.assert_close(rdm.sample({}, HOW, image_rng(0, 2, 4, stream="rdm")), many[2:4])
    assert not torch.isclose(rdm.sample({}, HOW, image_rng(1, 0, 6, stream="rdm")), many).all(1).any()


def test_the_sampler_sees_what_training_sees() -> None:
    """One trailing step from noise is the denoiser's guess at the last time, class included."""
    rdm = _rdm(LABELED)
    how = DiffusionSampling(kind="diffusion", sampler="ddim", steps=1, eta=0.0, spacing="trailing", guidance=0.0)
    y = torch.tensor([2, 0])
    drawn = rdm.sample({"class": y}, how, RowRng([1, 2]))
    noise = RowRng([1, 2]).normal(8)
    torch.testing.assert_close(drawn, _guess(rdm, noise, torch.tensor([999, 999]), _table(rdm)(y)))


def test_conditions_are_worked_out_once_for_all_steps_with_the_bits_of_every_step() -> None:
    rdm = _rdm(LABELED)
    ports, x, t = Ports(vector=torch.randn(3, 4)), torch.randn(3, TINY.dim), torch.tensor([7])
    time = rdm.net.time_vectors(t)
    assert torch.equal(rdm.net(x, time, rdm.net.prepare(ports)), rdm.net(x, time, ports))
    calls = []
    for block in cast(Any, rdm.net).res_blocks:
        block.context_layers.register_forward_hook(lambda *_: calls.append(1))
    rdm.sample({"class": torch.tensor([0, 2])}, HOW, RowRng([0, 1]))
    assert len(calls) == TINY.depth


def test_absent_classes_are_drawn_as_often_as_in_training() -> None:
    rdm = _rdm(LABELED)
    rdm.fit(Rows({"class": torch.tensor([0, 0, 0, 2])}), 0)
    assert rdm.class_frequencies is not None
    assert rdm.class_frequencies.tolist() == [0.75, 0.0, 0.25]
    how = DiffusionSampling(kind="diffusion", sampler="ddim", steps=1, eta=0.0, spacing="trailing", guidance=0.0)
    drawn = rdm.sample({}, how, RowRng(range(400)))
    # The class is drawn before the noise, so each row can be matched with the class that explains it.
    rng = RowRng(range(400))
    rng.uniform()
    noise = rng.normal(8)
    t = torch.full((400,), 999)
    by_class = torch.stack([_guess(rdm, noise, t, _table(rdm)(torch.full((400,), y))) for y in range(3)])
    counts = torch.bincount((by_class - drawn).square().sum(2).argmin(0), minlength=3) / 400
    assert counts.tolist() == pytest.approx([0.75, 0.0, 0.25], abs=0.06)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="no labels"):
        build_rdm(LABELED, None)
    with pytest.raises(ConfigError, match="no training image has a label"):
        _rdm(LABELED).fit(Rows({"class": torch.tensor([-1, -1])}), 0)
    with pytest.raises(ConfigError, match="8 dimensions"):
        TINY.model_copy(update={"dim": 16}).build(_rdm().data)
    with pytest.raises(ShapeError, match="representation of the wrong shape"):
        _rdm().loss({"representation": torch.zeros(2, 9)}, BatchRng(0, 2))
    with pytest.raises(ShapeError, match="index out of range"):
        _rdm(LABELED).sample({"class": torch.tensor([3])}, HOW, RowRng([0]))
    with pytest.raises(ConfigError, match="30 sampling steps"):
        _rdm().sample({}, HOW.model_copy(update={"steps": 30, "spacing": "reference"}), RowRng([0]))


@pytest.mark.parametrize("config", [TINY, LABELED])
def test_saved_and_loaded_draws_the_same(tmp_path: Path, config: RdmConfig) -> None:
    rdm, artifact = _rdm(config), FolderArtifact(tmp_path)
    if config.conditions:
        rdm.fit(Rows({"class": torch.tensor([0, 1, 1])}), 0)
    save_generator(rdm, artifact)
    loaded = load_rdm(artifact)
    assert loaded.config == config
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded.sample({}, HOW, RowRng([1, 2])), rdm.sample({}, HOW, RowRng([1, 2])))
    config_json = artifact.read_json("config.json")
    config_json["model"]["width"] = 32
    artifact.write_json("config.json", config_json)
    with pytest.raises(WeightsError, match="does not fit"):
        load_rdm(artifact)


def test_it_learns_two_modes() -> None:
    """Rows are +a or -a, three to one; samples must be one of the two, in that proportion."""
    config = TINY.model_copy(update={"width": 48})
    torch.manual_seed(0)
    rdm = build_rdm(config, None)
    a = torch.tensor([1.0, -1.0] * 4)
    optimizer = torch.optim.Adam(rdm.parameters(), lr=5e-3)
    rng = BatchRng(0, 64)
    for _ in range(150):
        sign = torch.where(rng.uniform(1) < 0.75, 1.0, -1.0)
        loss = rdm.loss({"representation": sign * a}, rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    drawn = rdm.sample(
        {},
        DiffusionSampling(kind="diffusion", sampler="ddim", steps=20, eta=1.0, spacing="reference", guidance=0.0),
        RowRng(range(200)),
    )
    side = (drawn @ a / 8).sign()
    assert float((drawn - side[:, None] * a).square().mean().sqrt()) < 0.25
    assert float((side > 0).float().mean()) == pytest.approx(0.75, abs=0.1)
