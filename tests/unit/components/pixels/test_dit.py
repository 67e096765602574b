"""DiT: its arithmetic, what it is conditioned on, its sampling options, its files, and that it learns."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as tf

from components.conditions.ports import Ports
from components.diffusion.predict import Prediction
from components.diffusion.process import alpha_bars
from components.diffusion.schedule import ScheduleConfig
from components.errors import ConfigError, ShapeError
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.generators.files import save_generator
from components.generators.sampling import DiffusionSampling, MaskedSampling
from components.pixels import load_pixels
from components.pixels.dit import DitConfig
from components.pixels.dit_network import DitNetwork
from components.rng import BatchRng, RowRng, image_rng
from components.target import TargetSpec
from tests.support.folders import FolderArtifact, randomize
from tests.support.generators import Rows, conditions

PIXELS = TargetSpec(space="pixels", shape=(3, 4, 4), dtype="uint8", n_codes=None, image_px=4)
LATENTS = TargetSpec(space="latents", shape=(2, 4, 4), dtype="float16", n_codes=None, image_px=16)
TOKENS = TargetSpec(space="tokens", shape=(4, 4), dtype="int32", n_codes=16, image_px=16)
TINY, HOW = DitConfig.tiny(), DiffusionSampling.tiny()
DIM = 5


def _config(kind: str = "representation", **changes: object) -> DitConfig:
    return TINY.model_copy(update={"conditions": conditions(kind)} | changes)


def _dit(config: DitConfig = TINY, spec: TargetSpec = PIXELS) -> Diffusion:
    generator = config.build(GeneratorData(target=spec, dim=DIM, classes=("a", "b")))
    randomize(generator)
    return generator


def _batch(n: int, spec: TargetSpec = PIXELS) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    if spec.space == "pixels":
        target = torch.randint(0, 256, (n, *spec.shape), generator=rng).to(torch.uint8)
    else:
        target = (3 + 5 * torch.randn(n, *spec.shape, generator=rng)).half()
    return {"target": target, "representation": torch.randn(n, DIM, generator=rng), "class": torch.arange(n) % 2}


def _by_hand(net: DitNetwork, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
    """DiT-block for DiT-block, without any of its modules."""
    w = dict(net.state_dict())
    b, channels, p, side = len(x), x.shape[1], 2, x.shape[2] // 2
    width = w["pos_embed"].shape[2]

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def modulated(value: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return tf.layer_norm(value, (width,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    patches = torch.stack([x[:, :, i : i + p, j : j + p].flatten(1) for i in range(0, 4, p) for j in range(0, 4, p)], 1)
    h = patches @ w["x_embedder.proj.weight"].flatten(1).T + w["x_embedder.proj.bias"] + w["pos_embed"]
    c = tf.silu(time + condition)
    for i in range(2):
        mod = linear(f"blocks.{i}.adaLN_modulation.1", c).chunk(6, 1)
        q, k, v = linear(f"blocks.{i}.attn.qkv", modulated(h, mod[0], mod[1])).chunk(3, 2)
        heads = []
        for s in range(0, width, width // 2):
            part = slice(s, s + width // 2)
            weights = (q[..., part] @ k[..., part].transpose(1, 2) / (width // 2) ** 0.5).softmax(-1)
            heads.append(weights @ v[..., part])
        h = h + mod[2][:, None] * linear(f"blocks.{i}.attn.proj", torch.cat(heads, 2))
        hidden = tf.gelu(linear(f"blocks.{i}.mlp.fc1", modulated(h, mod[3], mod[4])))
        h = h + mod[5][:, None] * linear(f"blocks.{i}.mlp.fc2", hidden)
    shift, scale = linear("final_layer.adaLN_modulation.1", c).chunk(2, 1)
    out = linear("final_layer.linear", modulated(h, shift, scale)).view(b, side, side, p, p, channels)
    image = torch.empty_like(x)
    for i in range(side):
        for j in range(side):
            image[:, :, i * p : i * p + p, j * p : j * p + p] = out[:, i, j].permute(0, 3, 1, 2)
    return image


def test_the_network_is_the_papers_arithmetic() -> None:
    net = _dit().net
    assert isinstance(net, DitNetwork)
    x = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    time, condition = net.time_vectors(torch.tensor([0, 500, 999])), torch.randn(3, 16)
    torch.testing.assert_close(
        net(x, time, Ports(vector=condition)), _by_hand(net, x, time, condition), rtol=1e-4, atol=1e-4
    )


def test_parameter_names_are_those_of_dit() -> None:
    names = {name for name, _ in _dit(_config(depth=1)).net.named_parameters()}
    block = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    modules = [f"blocks.0.{name}" for name in block]
    modules += [
        "x_embedder.proj",
        "t_embedder.mlp.0",
        "t_embedder.mlp.2",
        "final_layer.linear",
        "final_layer.adaLN_modulation.1",
    ]
    assert names == {"pos_embed", *(f"{m}.{end}" for m in modules for end in ("weight", "bias"))}


def test_it_starts_by_predicting_zero() -> None:
    generator = TINY.build(GeneratorData(target=PIXELS, dim=DIM, classes=None))
    batch, rng = _batch(4), BatchRng(0, 4)
    out = generator.net(torch.randn(4, 3, 4, 4), torch.zeros(1, 16), Ports(vector=torch.randn(4, 16)))
    assert not out.any()
    generator(batch, rng).mean().backward()
    trained = [p for p in generator.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    assert not generator.net.pos_embed.requires_grad


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_loss_per_row(kind: Prediction, min_snr: float | None) -> None:
    generator, batch = _dit(_config("none", prediction=kind, min_snr=min_snr)), _batch(6)
    rng = BatchRng(4, 6)
    t = rng.integers(1000)
    eps = rng.normal(3, 4, 4)
    ab = alpha_bars(TINY.schedule)[t].float()
    a, s = ab.sqrt().view(-1, 1, 1, 1), (1 - ab).sqrt().view(-1, 1, 1, 1)
    x0 = batch["target"].float() / 127.5 - 1
    out = generator.net(a * x0 + s * eps, generator.net.time_vectors(t), Ports())
    wanted = {"eps": eps, "x0": x0, "v": a * eps - s * x0}[kind]
    expected = (out - wanted).square().mean((1, 2, 3))
    if min_snr is not None:
        snr = ab / (1 - ab)
        expected = expected * snr.clamp(max=5) / {"eps": snr, "x0": torch.ones(6), "v": snr + 1}[kind]
    torch.testing.assert_close(generator.loss(batch, BatchRng(4, 6)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("condition", ["representation", "none", "class", "cluster"])
@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "dpm_solver_2m"])
def test_samples_are_stored_pixels_and_depend_on_their_own_noise(condition: str, sampler: str) -> None:
    generator = _dit(_config(condition))
    how = HOW.model_copy(update={"sampler": sampler})
    z = {"representation": _batch(5)["representation"]} if condition == "representation" else {}
    drawn = generator.sample(z, how, image_rng(0, 0, 5, stream="pixels"))
    assert (drawn.dtype, drawn.shape) == (torch.uint8, (5, 3, 4, 4))
    assert torch.equal(generator.sample(z, how, image_rng(0, 0, 5, stream="pixels")), drawn)
    part = {key: rows[1:3] for key, rows in z.items()}
    alone = generator.sample(part, how, image_rng(0, 1, 3, stream="pixels"))
    assert int((alone.int() - drawn[1:3].int()).abs().max()) <= 1
    assert len(torch.unique(drawn.flatten(1), dim=0)) == 5


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_one_step_returns_the_guess_at_the_last_time(kind: Prediction) -> None:
    generator = _dit(_config("none", prediction=kind, schedule=ScheduleConfig(kind="sqrt_linear", n_times=10)))
    drawn = generator.sample({}, HOW.model_copy(update={"steps": 1}), RowRng([7]))
    noise = RowRng([7]).normal(3, 4, 4)
    t = torch.tensor([9])
    out = generator.net(noise, generator.net.time_vectors(t), Ports())
    ab = float(alpha_bars(generator.config.schedule)[9])
    x0 = {"x0": out, "eps": (noise - (1 - ab) ** 0.5 * out) / ab**0.5, "v": ab**0.5 * noise - (1 - ab) ** 0.5 * out}[
        kind
    ]
    expected = ((x0.clamp(-1, 1) + 1) * 127.5).round()
    assert int((drawn.float() - expected).abs().max()) <= 1


def test_guidance_of_one_step_is_affine_in_its_scale() -> None:
    generator = _dit(_config(prediction="x0"), LATENTS)
    z = {"representation": _batch(4)["representation"]}

    def guided(scale: float) -> Tensor:
        how = HOW.model_copy(update={"guidance": scale, "steps": 1})
        return generator.sample(z, how, RowRng(range(4))).float()

    null = {"representation": cast(Any, generator.conditioner["representation"]).null.expand(4, -1)}
    cond, uncond = guided(0), generator.sample(null, HOW.model_copy(update={"steps": 1}), RowRng(range(4))).float()
    assert not torch.allclose(cond, uncond, atol=0.05)
    torch.testing.assert_close(guided(2), cond + 2 * (cond - uncond), rtol=5e-3, atol=5e-3)


def test_guidance_without_a_trained_null_is_refused() -> None:
    how = HOW.model_copy(update={"guidance": 1.0})
    for config in (_config("none"), _config(conditions=conditions("class", drop_prob=0.0))):
        with pytest.raises(ConfigError, match="guidance needs"):
            _dit(config).sample({"representation": torch.zeros(1, DIM)}, how, RowRng([0]))


def test_latents_are_standardized_for_the_network_and_come_back_in_their_scale() -> None:
    generator, batch = _dit(_config("none"), LATENTS), _batch(200, LATENTS)
    generator.fit(Rows(batch), 0)
    x = batch["target"].float()
    assert generator.mean[:, 0, 0].tolist() == pytest.approx(x.mean((0, 2, 3)).tolist(), rel=1e-3)
    assert generator.std[:, 0, 0].tolist() == pytest.approx(x.std((0, 2, 3)).tolist(), rel=1e-3)
    fresh = _config("none", prediction="x0").build(generator.data)
    fresh.fit(Rows(batch), 0)
    assert fresh.loss(batch, BatchRng(0, 200)).mean().item() == pytest.approx(1.0, abs=0.02)  # it predicts zero
    drawn = fresh.sample({}, HOW, RowRng([0]))  # the guess is the mean
    assert drawn.dtype == torch.float16
    assert drawn[0, :, 0, 0].tolist() == pytest.approx(x.mean((0, 2, 3)).tolist(), rel=1e-2)


def test_pixels_keep_their_scale() -> None:
    generator = _dit()
    generator.fit(Rows(_batch(20)), 0)
    assert float(generator.mean.abs().max()) == 0
    assert float((generator.std - 1).abs().max()) == 0


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="tokens") as caught:
        _dit(spec=TOKENS)
    assert "kind: mage" in str(caught.value.fix)
    with pytest.raises(ConfigError, match="does not split evenly"):
        _dit(_config(patch=3))
    with pytest.raises(ConfigError, match="set kind: diffusion"):
        _dit().sample({}, MaskedSampling.tiny(), RowRng([0]))
    with pytest.raises(ShapeError, match="target of the wrong shape"):
        _dit().loss({**_batch(2), "target": torch.zeros(2, 3, 4, 6)}, BatchRng(0, 2))
    with pytest.raises(ConfigError, match="1001 sampling steps"):
        _dit(_config("none")).sample({}, HOW.model_copy(update={"steps": 1001}), RowRng([0]))


@pytest.mark.parametrize("kind", ["representation", "none", "class", "cluster"])
def test_saved_and_loaded_draws_the_same(tmp_path: Path, kind: str) -> None:
    config = _config(kind)
    generator, artifact = _dit(config), FolderArtifact(tmp_path)
    generator.fit(Rows(_batch(20)), 1)
    save_generator(generator, artifact)
    loaded = load_pixels(artifact)
    assert loaded.data == generator.data
    z = {"representation": _batch(3)["representation"]} if kind == "representation" else {}
    assert torch.equal(loaded.sample(z, HOW, RowRng(range(3))), generator.sample(z, HOW, RowRng(range(3))))


def test_it_learns_to_paint_what_the_condition_says() -> None:
    """Two flat colors; the representation's sign says which."""
    torch.manual_seed(0)
    generator = _config(width=32).build(GeneratorData(target=PIXELS, dim=DIM, classes=None))
    optimizer = torch.optim.Adam(generator.parameters(), lr=5e-3)
    rng = BatchRng(0, 32)
    for _ in range(120):
        sign = torch.where(rng.uniform(1) < 0.5, -1.0, 1.0)
        target = (127.5 + 100 * sign).round().to(torch.uint8)[:, :, None, None].expand(-1, 3, 4, 4)
        loss = generator({"target": target, "representation": sign.expand(-1, DIM)}, rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sign = torch.tensor([-1.0, 1.0, 1.0, -1.0])
    told = {"representation": sign[:, None].expand(-1, DIM)}
    drawn = generator.sample(told, HOW.model_copy(update={"steps": 10}), RowRng(range(4)))
    means = drawn.float().mean((1, 2, 3))
    assert means.tolist() == pytest.approx((127.5 + 100 * sign).tolist(), abs=30)
