import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from components.encoders.config import ContrastiveConfig, MoCoV3Config
from components.encoders.contrastive import MoCoV3Trainer, contrastive_loss, momentum_at
from components.nn.vit import seeded_init
from components.rng import BatchRng
from tests.support.ranks import run_ranks

N = 12


def _trainer() -> MoCoV3Trainer:
    with seeded_init(1):
        trainer = MoCoV3Trainer(MoCoV3Config.tiny(), ContrastiveConfig.tiny())
        for parameter in trainer.momentum_encoder.parameters():  # as after some training: not equal to the base
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return trainer


def _images(n: int = N) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def _naive_loss(q: Tensor, k: Tensor, temperature: float) -> float:
    total = 0.0
    for i in range(len(q)):
        logits = [float(q[i] @ k[j]) / temperature for j in range(len(k))]
        total += math.log(sum(math.exp(x) for x in logits)) - logits[i]
    return 2 * temperature * total / len(q)


def test_loss_equals_the_written_out_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.nn.functional.normalize(torch.randn(7, 4, generator=generator), dim=1) for _ in range(2))
    assert contrastive_loss(q, k, 0.2).item() == pytest.approx(_naive_loss(q, k, 0.2), rel=1e-6)


def test_equal_keys_give_the_chance_level() -> None:
    q = torch.nn.functional.normalize(torch.ones(9, 4), dim=1)
    assert contrastive_loss(q, q, 0.3).item() == pytest.approx(2 * 0.3 * math.log(9), rel=1e-6)


def test_both_directions_and_both_heads_enter_the_loss() -> None:
    trainer, images = _trainer(), _images()
    loss, _ = trainer({"target": images}, BatchRng(3, N))
    again = _trainer()
    first, second = again.views(images, BatchRng(3, N))
    config = again.model
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.mean, config.std))
    unit = torch.nn.functional.normalize
    q1, q2 = (unit(again.predictor(again.base_encoder((v - mean) / std)), dim=1) for v in (first, second))
    k1, k2 = (unit(again.momentum_encoder((v - mean) / std), dim=1) for v in (first, second))
    expected = _naive_loss(q1.detach(), k2, 0.2) + _naive_loss(q2.detach(), k1, 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_transformer_takes_its_rows_in_parts_and_the_gradient_stays() -> None:
    gradients, seen = [], list[int]()
    for most in (None, 5, 1):
        trainer = _trainer()
        trainer.rows_at_once = most
        trainer.base_encoder.patch_embed.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        loss, _ = trainer({"target": _images()}, BatchRng(3, N))
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in trainer.parameters() if p.grad is not None)])
    assert seen[0] == 2 * N
    assert sorted(seen[1:7]) == [4, 4, 10, 10, 10, 10], "24 views, 10 at once, each computed twice"
    for parts in gradients[1:]:
        for mine, whole in zip(parts, gradients[0], strict=True):
            torch.testing.assert_close(mine, whole, atol=1e-6, rtol=1e-4)


def test_gradients_reach_all_but_the_momentum_encoder() -> None:
    trainer = _trainer()
    loss, _ = trainer({"target": _images()}, BatchRng(3, N))
    loss.backward()
    missing = {name for name, p in trainer.named_parameters() if p.grad is None}
    fixed = {"base_encoder.pos_embed", "base_encoder.patch_embed.proj.weight", "base_encoder.patch_embed.proj.bias"}
    assert missing == fixed | {f"momentum_encoder.{name}" for name, _ in trainer.momentum_encoder.named_parameters()}


def test_momentum_rises_along_a_cosine_and_the_first_update_changes_nothing() -> None:
    assert momentum_at(0.99, 0, 10) == pytest.approx(0.99)
    assert momentum_at(0.99, 5, 10) == pytest.approx(0.995)
    assert momentum_at(0.99, 10, 10) == 1.0
    trainer = _trainer()
    slow, fast = trainer.momentum_encoder.head[0].weight, trainer.base_encoder.head[0].weight
    before, rate = slow.clone(), momentum_at(0.9, 3, 10)
    trainer.after_step(3, 10)
    torch.testing.assert_close(slow, rate * before + (1 - rate) * fast)
    trainer.after_step(10, 10)
    torch.testing.assert_close(slow, rate * before + (1 - rate) * fast)


def test_momentum_norm_statistics_follow_its_own_passes() -> None:
    trainer = _trainer()
    trainer({"target": _images()}, BatchRng(3, N))
    assert int(trainer.momentum_encoder.head[1].num_batches_tracked) == 2  # one per view
    assert int(trainer.base_encoder.head[1].num_batches_tracked) == 2


def _step(trainer: torch.nn.Module, rows: slice) -> tuple[Tensor, list[Tensor | None]]:
    rng = BatchRng(3, N, start=rows.start, stop=rows.stop)
    loss, _ = trainer({"target": _images()[rows]}, rng)
    loss.backward()
    return loss.detach(), [p.grad for p in trainer.parameters()]


def _work(rank: int, _n: int) -> dict[str, Any]:
    trainer = _trainer()
    loss, grads = _step(DistributedDataParallel(trainer), slice(rank * N // 2, (rank + 1) * N // 2))
    return {"loss": loss, "grads": grads, "running": trainer.momentum_encoder.head[7].running_var}


@pytest.mark.processes
def test_two_ranks_agree_with_one() -> None:
    ranks = run_ranks(2, _work)
    trainer = _trainer()
    loss, grads = _step(trainer, slice(0, N))
    assert float(ranks[0]["loss"] + ranks[1]["loss"]) / 2 == pytest.approx(loss.item(), rel=1e-5)
    whole = sum(float(g.square().sum()) for g in grads if g is not None) ** 0.5
    for rank in ranks:
        torch.testing.assert_close(rank["running"], trainer.momentum_encoder.head[7].running_var, rtol=1e-5, atol=0)
        for ours, theirs in zip(rank["grads"], grads, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:  # a bias ahead of BatchNorm has no gradient but rounding
                assert float((ours - theirs).norm()) <= 1e-5 * max(float(theirs.norm()), 0.05 * whole)
