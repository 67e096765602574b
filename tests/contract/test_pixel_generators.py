"""What every pixel generator promises, asked of each member of the union, for every kind of condition."""

import dataclasses
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import torch

from components.errors import ConfigError, ShapeError
from components.generators.base import Generator
from components.generators.config import GeneratorData
from components.generators.files import save_generator
from components.generators.sampling import AnySampling, DiffusionSampling, MaskedSampling
from components.nn.unet import ResBlock
from components.nn.unit import Unit
from components.nn.vit import seeded_init
from components.pixels import PixelConfig, load_pixels
from components.pixels.adm import AdmConfig
from components.rng import BatchRng, image_rng
from components.target import TargetSpec
from components.training.config import TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.parallel import Passes, recomputing
from tests.support.folders import FolderArtifact, randomize
from tests.support.generators import Rows, conditions
from tests.support.toys import worker

PIXELS = TargetSpec(space="pixels", shape=(3, 8, 8), dtype="uint8", n_codes=None, image_px=8)
LATENTS = TargetSpec(space="latents", shape=(4, 4, 4), dtype="float16", n_codes=None, image_px=8)
TOKENS = TargetSpec(space="tokens", shape=(4, 4), dtype="int32", n_codes=8, image_px=8)
SPACES = {"mage": (TOKENS,)}
KINDS = ("representation", "none", "class", "cluster")
DIM, N_CLASSES = 6, 3
HOW: dict[str, AnySampling] = {"diffusion": DiffusionSampling.tiny(), "masked": MaskedSampling.tiny()}
CASES = [
    pytest.param(member.tiny(), target, kind, id=f"{member.tiny().kind}-{target.space}-{kind}")
    for member in get_args(get_args(PixelConfig)[0])
    for target in SPACES.get(member.tiny().kind, (PIXELS, LATENTS))
    for kind in KINDS
]
DROPPING = AdmConfig.tiny().model_copy(update={"drop_prob": 0.5})
CASES.append(pytest.param(DROPPING, PIXELS, "class", id="adm-dropout"))


def batch(target: TargetSpec, n: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    high = target.n_codes or 256
    stored = torch.randint(high, (n, *target.shape), generator=generator)
    if target.space == "latents":
        stored = torch.randn((n, *target.shape), generator=generator)
    return {
        "target": stored.to(getattr(torch, target.dtype)),
        "representation": torch.randn((n, DIM), generator=generator),
        "class": torch.arange(n) % N_CLASSES,
    }


def build(config: Any, target: TargetSpec, kind: str) -> tuple[Any, Generator]:
    config = config.model_copy(update={"conditions": conditions(kind)})
    with seeded_init(0):
        generator: Generator = config.build(GeneratorData(target=target, dim=DIM, classes=tuple("abc"[:N_CLASSES])))
    generator.fit(Rows(batch(target, 12)), 0)
    return config, generator


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize(("config", "target", "kind"), CASES)
def test_loss_is_one_number_per_example_and_repeatable(config: Any, target: TargetSpec, kind: str, n: int) -> None:
    _, generator = build(config, target, kind)
    first, second = (generator.loss(batch(target, n), BatchRng(3, n)) for _ in range(2))
    assert first.shape == (n,)
    assert bool(torch.isfinite(first).all())
    assert bool((first > 0).all())
    assert torch.equal(first, second)
    assert not torch.equal(first, generator.loss(batch(target, n), BatchRng(4, n)))


@pytest.mark.parametrize(("config", "target", "kind"), CASES)
def test_loss_of_a_row_does_not_depend_on_the_split_over_ranks(config: Any, target: TargetSpec, kind: str) -> None:
    _, generator = build(config, target, kind)
    rows = batch(target, 4)
    whole = generator.loss(rows, BatchRng(3, 4))
    halves = [
        generator.loss({key: value[a:b] for key, value in rows.items()}, BatchRng(3, 4, start=a, stop=b))
        for a, b in ((0, 1), (1, 4))
    ]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("config", "target", "kind"), CASES)
def test_activations_that_are_computed_again_give_the_same_gradient(
    config: Any, target: TargetSpec, kind: str, tmp_path: Path
) -> None:
    _, generator = build(config, target, kind)
    randomize(generator)
    trainable = GeneratorTrainable(generator.train(), None)
    inside = [part for unit in generator.modules() if isinstance(unit, Unit) for part in unit.children()]
    n_calls = [0]
    for part in inside:
        part.register_forward_pre_hook(lambda _part, _given: n_calls.append(n_calls.pop() + 1))
    gradients = []
    for recompute in (False, True):
        with recomputing(trainable, dataclasses.replace(worker(tmp_path), recompute=recompute)):
            trainable(batch(target, 4), BatchRng(3, 4))[0].backward()
        gradients.append([p.grad for p in generator.parameters()])
        generator.zero_grad()
        n_calls.append(0)
    once, twice, _ = n_calls
    assert twice > 1.5 * once > 0
    for first, second in zip(*gradients, strict=True):
        assert (first is None) == (second is None)
        assert first is None or torch.equal(first, second)


def test_dropout_is_in_training_alone_and_hits_each_residual_block() -> None:
    (_, dropping), (_, plain) = build(DROPPING, PIXELS, "class"), build(AdmConfig.tiny(), PIXELS, "class")
    randomize(dropping)
    plain.load_state_dict(dropping.state_dict())
    rows = batch(PIXELS, 4)
    losses = [one.train(mode).loss(rows, BatchRng(3, 4)) for one in (dropping, plain) for mode in (True, False)]
    assert not torch.equal(losses[0], losses[1])
    assert torch.equal(losses[1], losses[2])
    assert torch.equal(losses[2], losses[3])
    seen: list[torch.Tensor] = []
    blocks = [m for m in dropping.modules() if isinstance(m, ResBlock)]
    for block in blocks:
        block.out_layers[3].register_forward_pre_hook(lambda _conv, given: seen.append(given[0][0] == 0))
    dropping.train().loss(rows, BatchRng(3, 4))
    assert len(seen) == len(blocks)
    assert all(0.3 < float(zero.float().mean()) < 0.7 for zero in seen)
    masks = {tuple(zero.flatten()[:64].tolist()) for zero in seen}
    assert len(masks) == len(seen), "each has its own"


@pytest.mark.parametrize(("config", "target", "kind"), [case for case in CASES if case.values[2] == "representation"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    config: Any, target: TargetSpec, kind: str, tmp_path: Path
) -> None:
    _, generator = build(config, target, kind)
    randomize(generator)
    trainable, train = GeneratorTrainable(generator.train(), None), TrainConfig.tiny()
    found = []
    for micro_batch in (None, 3, 1):
        passes = Passes(trainable, train, dataclasses.replace(worker(tmp_path), micro_batch=micro_batch))
        loss = passes(7, 0, batch(target, train.batch_size))["loss"]
        found.append(
            torch.cat([loss.reshape(1), *(p.grad.flatten() for p in generator.parameters() if p.grad is not None)])
        )
        generator.zero_grad()
    for parts in found[1:]:
        assert float((parts - found[0]).norm() / found[0].norm()) < 1e-5


@pytest.mark.parametrize(("config", "target", "kind"), CASES)
def test_every_parameter_gets_a_gradient(config: Any, target: TargetSpec, kind: str) -> None:
    _, generator = build(config, target, kind)
    generator.train()(batch(target, 4), BatchRng(3, 4)).mean().backward()
    missing = [name for name, p in generator.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("config", "target", "kind"), CASES)
def test_samples_are_targets_and_repeatable(config: Any, target: TargetSpec, kind: str, n: int) -> None:
    _, generator = build(config, target, kind)
    given = {key: batch(target, n)[key] for key in generator.conditions}
    how = HOW[config.sampled_by].model_copy(update={"guidance": 0.0 if kind == "none" else 1.0})
    first, second = (generator.eval().sample(given, how, image_rng(5, 0, n, stream="pixels")) for _ in range(2))
    assert first.shape == (n, *target.shape)
    assert str(first.dtype) == f"torch.{target.dtype}"
    assert torch.equal(first, second)
    assert bool(torch.isfinite(first.float()).all())
    if target.n_codes is not None:
        assert 0 <= int(first.min()) <= int(first.max()) < target.n_codes
    assert not torch.equal(first, generator.sample(given, how, image_rng(6, 0, n, stream="pixels")))


@pytest.mark.parametrize(("config", "target", "kind"), CASES)
def test_the_noise_of_an_image_is_its_own(config: Any, target: TargetSpec, kind: str) -> None:
    _, generator = build(config, target, kind)
    given = {key: batch(target, 4)[key] for key in generator.conditions}
    whole = generator.eval().sample(given, HOW[config.sampled_by], image_rng(5, 0, 4, stream="pixels"))
    part = {key: value[2:] for key, value in given.items()}
    rest = generator.sample(part, HOW[config.sampled_by], image_rng(5, 2, 4, stream="pixels"))
    tolerance = 1 if target.space == "pixels" else 1e-2  # another batch size may round another way
    torch.testing.assert_close(rest.float(), whole[2:].float(), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("config", "target", "kind"), CASES)
def test_saved_and_loaded_samples_are_equal(config: Any, target: TargetSpec, kind: str, tmp_path: Path) -> None:
    config, generator = build(config, target, kind)
    save_generator(generator, FolderArtifact(tmp_path))
    again = load_pixels(FolderArtifact(tmp_path))
    given = {key: batch(target, 2)[key] for key in generator.conditions}
    ours, theirs = (
        g.sample(given, HOW[config.sampled_by], image_rng(5, 0, 2, stream="pixels")) for g in (generator.eval(), again)
    )
    assert torch.equal(ours, theirs)
    assert again.data == generator.data


@pytest.mark.parametrize(("config", "target", "kind"), CASES)
def test_the_condition_matters(config: Any, target: TargetSpec, kind: str) -> None:
    _, generator = build(config, target, kind)
    if kind == "none":
        pytest.skip("an unconditional generator has no condition")
    null = cast(Any, generator.conditioner[kind]).null
    torch.nn.init.normal_(null, std=3.0)
    rows = batch(target, 4)
    other = {**rows, "representation": -3 * rows["representation"], "class": (rows["class"] + 1) % N_CLASSES}
    with seeded_init(1):  # zero-initialised layers would hide it
        for p in generator.parameters():
            if not bool(p.any()) and p is not null:
                torch.nn.init.normal_(p, std=0.2)
    assert not torch.allclose(generator.loss(rows, BatchRng(3, 4)), generator.loss(other, BatchRng(3, 4)), atol=1e-7)


@pytest.mark.parametrize(("config", "target", "kind"), CASES)
def test_bad_input_is_named(config: Any, target: TargetSpec, kind: str) -> None:
    _, generator = build(config, target, kind)
    short = {**batch(target, 2), "target": batch(target, 2)["target"][..., :-1]}
    with pytest.raises(ShapeError, match="target"):
        generator.loss(short, BatchRng(3, 2))
    strangers = [how for other, how in HOW.items() if other != config.sampled_by]
    for stranger in strangers:
        with pytest.raises(ConfigError):
            generator.sample({}, stranger, image_rng(5, 0, 1, stream="pixels"))
    if kind == "representation":
        with pytest.raises(ConfigError, match="representation"):
            generator.sample({}, HOW[config.sampled_by], image_rng(5, 0, 1, stream="pixels"))


@pytest.mark.parametrize(("config", "target", "kind"), CASES)
def test_guidance_without_a_trained_null_is_refused(config: Any, target: TargetSpec, kind: str) -> None:
    never = config.model_copy(update={"conditions": conditions(kind, drop_prob=0.0)})
    generator = never.build(GeneratorData(target=target, dim=DIM, classes=tuple("abc")))
    given = {key: batch(target, 1)[key] for key in generator.conditions}
    how = HOW[config.sampled_by].model_copy(update={"guidance": 1.0})
    with pytest.raises(ConfigError, match="guidance needs"):
        generator.sample(given, how, image_rng(5, 0, 1, stream="pixels"))


@pytest.mark.parametrize("config", [member.tiny() for member in get_args(get_args(PixelConfig)[0])])
def test_a_space_that_does_not_suit_is_refused_with_the_fix(config: Any) -> None:
    suits = SPACES.get(config.kind, (PIXELS, LATENTS))
    for target in (PIXELS, LATENTS, TOKENS):
        if target not in suits:
            with pytest.raises(ConfigError, match="fix:"):
                config.build(GeneratorData(target=target, dim=DIM, classes=None))
