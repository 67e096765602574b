import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from components.training.config import OptimConfig, TrainConfig
from components.training.optim import adamw, clip_gradients, decays, lr_at, parameters_of, set_lr
from tests.support.toys import AdamWByHand


def config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate(TrainConfig.tiny().model_dump() | changes)


def test_constant_schedule_warms_up_linearly_and_stays() -> None:
    c = config(steps=10, warmup_steps=4)
    assert [lr_at(c, s) / 1e-3 for s in range(10)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])


def test_cosine_schedule_falls_from_the_peak_towards_zero() -> None:
    c = config(steps=12, warmup_steps=2, schedule="cosine")
    rates = [lr_at(c, s) / 1e-3 for s in range(12)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[7] == pytest.approx(0.5)  # half of the ten steps after the warm-up
    assert rates[11] == pytest.approx((1 + math.cos(0.9 * math.pi)) / 2)


def test_no_warmup_starts_at_the_peak() -> None:
    assert lr_at(config(warmup_steps=0), 0) == 1e-3


def test_warmup_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ValidationError, match="warmup_steps is 4 but steps is 4"):
        config(warmup_steps=4)


def named() -> list[tuple[str, nn.Parameter]]:
    shapes = {"a.weight": (2, 3), "a.bias": (3,), "table.bias": (2, 2), "norm.weight": (3,), "pos": (1, 2, 3)}
    return [(name, nn.Parameter(torch.ones(shape))) for name, shape in shapes.items()]


def test_only_matrices_decay() -> None:
    assert [decays(name, p, OptimConfig.tiny()) for name, p in named()] == [True, False, False, False, True]


def test_everything_decays() -> None:
    config = OptimConfig.tiny().model_copy(update={"decay": "all"})
    assert all(decays(name, p, config) for name, p in named())


def test_one_adamw_step_is_the_formula() -> None:
    c = OptimConfig(kind="adamw", lr=0.1, betas=(0.9, 0.99), weight_decay=0.5, decay="all")
    p = nn.Parameter(torch.tensor([[2.0, -3.0]]))
    p.grad = torch.tensor([[0.3, -0.1]])
    adamw([("w", p)], c).step()
    # first step: bias-corrected moments are g and g^2, so the move is lr * sign(g)
    expected = torch.tensor([[2.0, -3.0]]) * (1 - 0.1 * 0.5) - 0.1 * torch.tensor([[1.0, -1.0]])
    torch.testing.assert_close(p.data, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("decay", ["all", "matrices"])
def test_many_steps_are_the_algorithm(decay: str) -> None:
    c = OptimConfig.tiny().model_copy(update={"decay": decay, "weight_decay": 0.1})
    mine, theirs = named(), named()
    decaying = ["a.weight", "pos"] if decay == "matrices" else [n for n, _ in theirs]
    oracle = AdamWByHand([p for _, p in theirs], c.betas, [0.1 if n in decaying else 0.0 for n, _ in theirs])
    ours = adamw(mine, c)
    rng = torch.Generator().manual_seed(0)
    for step in range(20):
        for (_, p), (_, q) in zip(mine, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=rng)
            q.grad = p.grad.clone()
        set_lr(ours, 0.01 * (step + 1))
        ours.step()
        oracle.step(0.01 * (step + 1))
    for (_, p), (_, q) in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-5)


def test_state_continues_and_of_another_model_is_refused() -> None:
    mine, theirs = named(), named()
    ours, other = adamw(mine, OptimConfig.tiny()), adamw(theirs, OptimConfig.tiny())
    _push(ours)
    other.load_state_dict(ours.state_dict())
    for optimizer in (ours, other):
        with torch.no_grad():
            for p in parameters_of(optimizer):
                p.fill_(1.0)
        _push(optimizer)
    assert all(torch.equal(p, q) for (_, p), (_, q) in zip(mine, theirs, strict=True))
    with pytest.raises(ValueError, match="doesn't match the size"):
        adamw(theirs[:-1], OptimConfig.tiny()).load_state_dict(ours.state_dict())


def _push(optimizer: torch.optim.AdamW) -> None:
    for p in parameters_of(optimizer):
        p.grad = torch.full_like(p, 0.3)
    set_lr(optimizer, 0.1)
    optimizer.step()


def test_a_parameter_without_a_gradient_stays() -> None:
    p = nn.Parameter(torch.ones(2, 2))
    adamw([("w", p)], OptimConfig.tiny()).step()
    assert torch.equal(p.data, torch.ones(2, 2))


def test_clipping_scales_to_the_norm_and_returns_the_norm_before() -> None:
    p, q = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    p.grad, q.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    norm = clip_gradients([p, q], 1.0)
    assert norm is not None
    assert norm.item() == pytest.approx(5.0)
    torch.testing.assert_close(torch.cat([p.grad, q.grad]), torch.tensor([0.6, 0.0, 0.8]), atol=1e-5, rtol=0)


def test_no_clipping_leaves_gradients_alone() -> None:
    p = nn.Parameter(torch.zeros(1))
    p.grad = torch.tensor([100.0])
    assert clip_gradients([p], None) is None
    assert p.grad.item() == 100.0


def test_a_line_falls_to_zero() -> None:
    c = config(warmup_steps=0, schedule="linear")
    assert [lr_at(c, s) / 1e-3 for s in range(0, c.steps, c.steps // 2)] == pytest.approx([1, 0.5])
