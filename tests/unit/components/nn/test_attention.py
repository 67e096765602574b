"""The fused kernel and the written-out attention are the same function, forward and backward."""

import pytest
import torch

from components.nn.attention import Attention, CrossAttention, attend, attend_explicitly
from tests.support.folders import randomize


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


@pytest.mark.parametrize("masked", [True, False])
def test_a_mask_takes_keys_away(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, (k, v) = torch.randn(2, 3, 5, 4, generator=generator), torch.randn(2, 2, 3, 6, 4, generator=generator)
    mask = torch.rand(2, 6, generator=generator) < 0.5 if masked else None
    rows = [torch.ones(6, dtype=torch.bool)] * 2 if mask is None else list(mask)
    expected = torch.cat(
        [attend(q[b : b + 1], k[b : b + 1, :, row], v[b : b + 1, :, row]) for b, row in enumerate(rows)]
    )
    torch.testing.assert_close(attend(q, k, v, mask), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(attend_explicitly(q, k, v, mask), expected, rtol=1e-5, atol=1e-6)


def test_self_attention_under_a_mask() -> None:
    module, x = Attention(8, 2, qkv_bias=True), torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([True, True, False, True, False]).expand(2, -1)
    kept = x[:, [0, 1, 3]]
    torch.testing.assert_close(module(x, mask)[:, [0, 1, 3]], module(kept), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module.at(x, x[:, [3]], mask), module(kept)[:, [2]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("masked", [True, False])
def test_cross_attention_head_by_head(masked: bool) -> None:
    dim, heads, d, m = 8, 2, 4, 5
    module = CrossAttention(dim, heads, 6)
    assert not module(torch.ones(1, 2, dim), torch.ones(1, m, 6), None).any(), "it starts at zero"
    randomize(module)
    generator = torch.Generator().manual_seed(0)
    x, sequence = torch.randn(2, 3, dim, generator=generator), torch.randn(2, m, 6, generator=generator)
    mask = torch.tensor([[True, False, True, True, False], [False] * m]) if masked else None
    expected = torch.empty(2, 3, dim)
    for b in range(2):
        counted = sequence[b] if mask is None else sequence[b][mask[b]]
        q, kv = module.q_linear(x[b]), module.kv_linear(counted)
        mixed = torch.zeros(3, dim)
        for part in (slice(i * d, (i + 1) * d) for i in range(heads) if len(counted)):
            k, v = kv[:, :dim][:, part], kv[:, dim:][:, part]
            mixed[:, part] = (q[:, part] @ k.T / d**0.5).softmax(1) @ v
        expected[b] = module.proj(mixed)
    torch.testing.assert_close(module(x, sequence, mask), expected, rtol=1e-4, atol=1e-5)


def test_dropped_weights_are_gone() -> None:
    q, k, v = torch.randn(3, 1, 1, 2, 4, generator=torch.Generator().manual_seed(0))
    only_first = torch.tensor([1.0, 0.0])
    out = attend_explicitly(q, k, v, drop=lambda weights: weights * only_first)
    share = ((q @ k.transpose(2, 3)) / 2).softmax(-1)[..., :1]
    torch.testing.assert_close(out, share * v[:, :, :1])
