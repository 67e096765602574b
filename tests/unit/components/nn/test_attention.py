"""The fused kernel and the written-out attention are the same function, forward and backward."""

import pytest
import torch

from components.nn.attention import attend, attend_explicitly


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 8), (2, 16, 33, 48)])
def test_explicit_attention_is_the_fused_one(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, *shape, generator=generator)
    fused, explicit = ([x.clone().requires_grad_() for x in rows] for _ in range(2))
    one, other = attend(*fused), attend_explicitly(*explicit)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    one.square().sum().backward()
    other.square().sum().backward()
    for x, y in zip(fused, explicit, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)


def test_dropped_weights_are_gone() -> None:
    q, k, v = torch.randn(3, 1, 1, 2, 4, generator=torch.Generator().manual_seed(0))
    only_first = torch.tensor([1.0, 0.0])
    out = attend_explicitly(q, k, v, drop=lambda weights: weights * only_first)
    share = ((q @ k.transpose(2, 3)) / 2).softmax(-1)[..., :1]
    torch.testing.assert_close(out, share * v[:, :, :1])
