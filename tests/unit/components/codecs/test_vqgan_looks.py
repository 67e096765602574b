"""Perceptual and adversarial terms of a VQGAN in training."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from components.base import Batch
from components.codecs.adversarial import Discriminator, adaptive_weight, hinge
from components.codecs.config import AdversarialConfig, TimmFeatures, VitFeatures, VqganConfig, VqganObjective
from components.codecs.perceptual import Perceptual, build
from components.codecs.vqgan_training import VqganTrainable
from components.encoders.config import MoCoV3Config
from components.errors import ConfigError, WeightsError
from components.nn.vit import seeded_init
from components.rng import BatchRng
from components.training.config import TrainConfig
from components.training.loop import train
from components.weights import save_weights
from components.weights_file import WeightsFile
from tests.support.ranks import run_ranks
from tests.support.toys import worker

N = 6
GAN = AdversarialConfig.tiny()
STATISTICS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.5)}


def trainable(**objective: object) -> VqganTrainable:
    with seeded_init(0):
        vqgan = VqganConfig.tiny().build()
        config = VqganObjective.tiny().model_copy(update={"free_steps": 0, **objective})
        return VqganTrainable(vqgan, config).train()


def images(n: int = N) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def pinned(path: Path) -> WeightsFile:
    return WeightsFile(uri=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def vit(tmp_path: Path) -> tuple[VitFeatures, nn.Module]:
    with seeded_init(3):
        network = MoCoV3Config.tiny().model_copy(update={"depth": 2}).build().network
    save_weights(tmp_path / "encoder.safetensors", network.state_dict())
    config = VitFeatures(
        kind="vit", weight=0.5, weights=pinned(tmp_path / "encoder.safetensors"), heads=2, layers=(0, 1), **STATISTICS
    )
    return config, network


def test_hinge_counts_judgments_within_the_margin() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, -0.5, 1.0])
    assert float(hinge(real, fake)) == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 0.5 + 2) / 3))


def test_judgments_are_per_patch_and_per_picture() -> None:
    with seeded_init(0):
        judge = Discriminator(AdversarialConfig(weight=1, start_step=0, width=8, depth=3))
    x = torch.rand(3, 3, 64, 64)
    assert judge(x).shape == (3, 1, 6, 6)
    torch.testing.assert_close(judge(x)[1:2], judge(x[1:2]))


def test_the_adaptive_weight_makes_both_gradients_equally_long() -> None:
    model = trainable(adversarial=GAN)
    last = model.vqgan.decoder.conv_out.weight
    made = model.vqgan.decoder(model.vqgan.encoder(images()))
    assert model.discriminator is not None
    l1, fooled = (made - images()).abs().mean(), -model.discriminator(made).mean()
    balance = adaptive_weight(l1, fooled, last, rows=N)
    lengths = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (l1, balance * fooled)]
    torch.testing.assert_close(lengths[1], lengths[0], rtol=0.02, atol=0)  # 1e-4 in the denominator


def test_the_loss_is_the_weighted_sum_of_all_terms(vit: tuple[VitFeatures, nn.Module]) -> None:
    model = trainable(adversarial=GAN, perceptual=vit[0]).eval()
    loss, told = model({"images": images()}, BatchRng(0, N))
    expected = told["l1"] + told["l2"] + 0.25 * told["commitment"] + 0.5 * told["perceptual"]
    expected = expected + 0.8 * told["adversarial_weight"] * told["adversarial"]
    torch.testing.assert_close(loss.detach(), expected)


def test_without_the_terms_nothing_is_different() -> None:
    plain, game = trainable(), trainable(adversarial=GAN.model_copy(update={"start_step": 9}))
    for model in (plain, game):
        loss, _ = model({"images": images()}, BatchRng(0, N))
        loss.backward()
    ours = dict(game.vqgan.named_parameters())
    for name, p in plain.vqgan.named_parameters():
        assert (p.grad is None) == (ours[name].grad is None)
        assert p.grad is None or torch.equal(p.grad, ours[name].grad), name
    assert len(plain.optimizer_parameters()) == 1
    judged, _ = game({"images": images()}, BatchRng(0, N), 1)
    assert float(judged.detach()) == 0.0


def test_each_optimizer_has_its_own_parameters() -> None:
    model = trainable(adversarial=GAN)
    autoencoder, judge = (dict(group) for group in model.optimizer_parameters())
    assert set(judge) == {n for n, _ in model.named_parameters() if n.startswith("discriminator.")}
    assert not autoencoder.keys() & judge.keys()
    assert "vqgan.quantize.embedding.weight" not in autoencoder
    loss, told = model({"images": images()}, BatchRng(0, N), 1)
    loss.backward()
    assert all(p.grad is not None for p in judge.values())
    assert all(p.grad is None for p in autoencoder.values())
    assert {"judged_real", "judged_fake"} <= told.keys()


def test_perceptual_distance_by_the_formula(vit: tuple[VitFeatures, nn.Module]) -> None:
    config, network = vit
    distance = build(config)
    a, b = images(2), images(4)[2:]
    expected = 0.0
    for layer in config.layers:
        maps = []
        for x in (a, b):
            mean, std = (torch.tensor(STATISTICS[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
            tokens = network.patch_embed((x - mean) / std)
            tokens = torch.cat([network.cls_token.expand(2, -1, -1), tokens], 1) + network.pos_embed
            for i in range(layer + 1):
                tokens = network.blocks[i](tokens)
            maps.append(tokens[:, 1:])
        first, second = (m / m.norm(dim=2, keepdim=True) for m in maps)
        expected += float((first - second).square().sum(2).mean())
    assert float(distance(a, b)) == pytest.approx(expected, rel=1e-4)
    assert float(distance(a, a)) == 0.0


def test_gradients_reach_the_pictures_alone(vit: tuple[VitFeatures, nn.Module]) -> None:
    distance, made = build(vit[0]), images().requires_grad_()
    distance(images() * 0.5, made).backward()
    assert made.grad is not None
    assert float(made.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in distance.parameters())
    assert not distance.train().training


def test_published_and_misnamed_networks(tmp_path: Path, vit: tuple[VitFeatures, nn.Module]) -> None:
    config, network = vit
    official = {f"module.base_encoder.{name}": t for name, t in network.state_dict().items()}
    torch.save({"state_dict": official | {"module.predictor.0.weight": torch.ones(1)}}, tmp_path / "moco.pth.tar")
    again = build(config.model_copy(update={"weights": pinned(tmp_path / "moco.pth.tar")}))
    assert torch.equal(again(images(2), images(4)[2:]), build(config)(images(2), images(4)[2:]))
    with pytest.raises(ConfigError, match="no such block"):
        build(config.model_copy(update={"layers": (2,)}))
    save_weights(tmp_path / "other.safetensors", {"a": torch.ones(1)})
    with pytest.raises(ConfigError, match="no ViT"):
        build(config.model_copy(update={"weights": pinned(tmp_path / "other.safetensors")}))
    absent = WeightsFile(uri=str(tmp_path / "vgg16.pth"), sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"vgg16\.pth(.|\n)*codec\.objective\.perceptual\.weights"):
        build(config.model_copy(update={"weights": absent}))


def test_timm_features(tmp_path: Path) -> None:
    import timm

    save_weights(tmp_path / "r.safetensors", timm.create_model("test_resnet", pretrained=False).state_dict())
    config = TimmFeatures(
        kind="timm",
        name="test_resnet",
        weight=1.0,
        weights=pinned(tmp_path / "r.safetensors"),
        layers=(1, 2),
        **STATISTICS,
    )
    distance: Perceptual = build(config)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert float(distance(x, x)) == 0.0
    assert float(distance(x, x.flip(0))) > float(distance(x, 0.99 * x)) > 0
    with pytest.raises(ConfigError, match="no model"):
        build(config.model_copy(update={"name": "resnet_of_nobody"}))


def _grads(rank: int, n_ranks: int) -> dict[str, torch.Tensor]:
    """Gradients of both optimizers, averaged over ranks as DDP does."""
    from torch import distributed

    model, rows = trainable(adversarial=GAN), slice(N * rank // n_ranks, N * (rank + 1) // n_ranks)
    batch = {"images": images()[rows]}
    for which in (0, 1):
        others = model.optimizer_parameters()[1 - which]
        for _, p in others:
            p.requires_grad_(False)
        model(batch, BatchRng(0, N, start=rows.start, stop=rows.stop), which)[0].backward()
        for _, p in others:
            p.requires_grad_(True)
    grads = {name: p.grad / n_ranks for name, p in model.named_parameters() if p.grad is not None}
    if n_ranks > 1:
        for value in grads.values():
            distributed.all_reduce(value)
    return grads


@pytest.mark.processes
def test_two_ranks_agree_with_one() -> None:
    grads, others = _grads(0, 1), run_ranks(2, _grads)[1]
    assert grads.keys() == others.keys()
    whole = sum(float(g.square().sum()) for g in grads.values()) ** 0.5
    for name, theirs in grads.items():
        assert float((others[name] - theirs).norm()) <= 1e-4 * max(float(theirs.norm()), 0.05 * whole), name


def test_training_with_all_terms_reconstructs(tmp_path: Path, vit: tuple[VitFeatures, nn.Module]) -> None:
    def fetch(indices: np.ndarray, rng: BatchRng) -> Batch:
        shade = torch.linspace(0, 1, 16)[indices]
        return {"images": shade.view(-1, 1, 1, 1).expand(-1, 3, 8, 8)}

    config = TrainConfig.tiny().model_copy(update={"steps": 120, "batch_size": 8, "log_every": 20})
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"lr": 5e-3})})
    game = GAN.model_copy(update={"start_step": 60, "weight": 0.1})
    model = trainable(adversarial=game, perceptual=vit[0])
    curve = train(model, fetch, 16, config, worker(tmp_path)).curve
    assert curve[2]["l2"] < 0.4 * curve[0]["l2"]
    assert curve[0]["loss_1"] == 0.0
    assert curve[-1]["loss_1"] > 0
    assert {"perceptual", "adversarial", "adversarial_weight", "codes_restarted"} <= curve[-1].keys()
