import pytest
import torch
from torch import nn

from components.training.config import EmaConfig
from components.training.ema import Ema


def test_ramped_decay() -> None:
    c = EmaConfig(decay=0.9999, rule="ramped")
    assert [c.decay_at(n) for n in (1, 2, 90)] == pytest.approx([2 / 11, 3 / 12, 0.91])
    assert c.decay_at(10**6) == 0.9999


def test_constant_decay() -> None:
    assert EmaConfig(decay=0.99, rule="constant").decay_at(1) == 0.99


@pytest.mark.parametrize("rule", ["constant", "ramped"])
def test_the_average_is_the_recursion_in_float64(rule: str) -> None:
    c = EmaConfig.model_validate({"decay": 0.7, "rule": rule})
    module = nn.Linear(3, 2)
    ema = Ema(module, c)
    oracle = module.weight.detach().double()
    for n in range(1, 12):
        with torch.no_grad():
            module.weight.add_(torch.full((2, 3), float(n)))
        ema.update(module, n)
        decay = 0.7 if rule == "constant" else min(0.7, (1 + n) / (10 + n))
        oracle = decay * oracle + (1 - decay) * module.weight.detach().double()
    torch.testing.assert_close(ema.module.weight.double(), oracle, atol=1e-4, rtol=1e-6)


def test_buffers_are_copied() -> None:
    module = nn.BatchNorm1d(2)
    ema = Ema(module, EmaConfig.tiny())
    module.running_mean += 3
    ema.update(module, 1)
    assert ema.module.running_mean.tolist() == [3, 3]


def test_the_copy_neither_trains_nor_follows() -> None:
    module = nn.Linear(2, 2)
    ema = Ema(module, EmaConfig.tiny())
    before = ema.module.weight.clone()
    with torch.no_grad():
        module.weight.add_(1)
    assert torch.equal(ema.module.weight, before)
    assert not any(p.requires_grad for p in ema.parameters())


def test_swap_twice_is_nothing_and_copy_overwrites() -> None:
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)
    ema = Ema(other, EmaConfig.tiny())
    live, averaged = module.weight.clone(), other.weight.clone()
    ema.swap(module)
    assert torch.equal(module.weight, averaged)
    assert torch.equal(ema.module.weight, live)
    ema.swap(module)
    assert torch.equal(module.weight, live)
    ema.copy_to(module)
    assert torch.equal(module.weight, averaged)


def test_state_dict_goes_round() -> None:
    one, two = Ema(nn.Linear(2, 2), EmaConfig.tiny()), Ema(nn.Linear(2, 2), EmaConfig.tiny())
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.module.weight, two.module.weight)


def test_a_start_that_weighs_more_than_a_percent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"82% of the average; set ema\.decay: 0\.9977, or ema\.rule: ramped"):
        EmaConfig(decay=0.9999, rule="constant").check_start(2000)
    for decay, rule, steps in ((0.9977, "constant", 2000), (0.9999, "ramped", 20), (0.0, "constant", 1)):
        EmaConfig.model_validate({"decay": decay, "rule": rule}).check_start(steps)
