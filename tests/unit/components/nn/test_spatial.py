"""Attention of UNets against loops over examples, positions and heads: row orders, sequences, masks, one key."""

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as tf

from components.nn.spatial import ContextBlock, HeadedAttention, ImageAttention, QkvOrder
from tests.support.folders import randomize

C, D, H, W, M, S = 12, 4, 3, 2, 5, 7
"""Channels, width of a head, sides of the map, positions of a sequence and their width."""
MASK = torch.tensor([[True, True, False, True, False], [False, True, False, False, False]])


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _attention(order: QkvOrder, *, sequence: bool = False, head_width: int = D) -> ImageAttention:
    module = ImageAttention(C, head_width, 3, order=order, sequence_width=S if sequence else None)
    randomize(module)
    return module


def _weighted(q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """One query's mean of the values. Shapes: (d)."""
    logits = [float((q @ k).detach()) / len(q) ** 0.5 for k in keys]
    weights = torch.tensor(logits).softmax(0)
    return sum((w * v for w, v in zip(weights, values, strict=True)), torch.zeros(len(q)))


def _rows_of_head(i: int, part: int, d: int, order: QkvOrder) -> slice:
    """Where q (0), k (1) or v (2) of head i stand in the rows of qkv."""
    start = i * 3 * d + part * d if order == "per_head" else part * C + i * d
    return slice(start, start + d)


def _by_hand(module: ImageAttention, x: Tensor, sequence: Tensor | None, mask: Tensor | None, d: int) -> Tensor:
    out = torch.empty_like(x)
    weight, bias = module.qkv.weight[:, :, 0], module.qkv.bias
    assert bias is not None
    normed = tf.group_norm(x, 3, module.norm.weight, module.norm.bias, 1e-5)
    for b in range(len(x)):
        pixels = [normed[b, :, i, j] for i in range(H) for j in range(W)]
        qkv = [weight @ p + bias for p in pixels]
        mixed = [torch.empty(C) for _ in pixels]
        for head in range(C // d):
            q, k, v = ([row[_rows_of_head(head, part, d, module.order)] for row in qkv] for part in range(3))
            if sequence is not None:
                assert module.encoder_kv is not None
                assert module.encoder_kv.bias is not None
                counts = [mask is None or bool(mask[b, m]) for m in range(M)]
                counted = [row for row, counts in zip(sequence[b], counts, strict=True) if counts]
                kv = [module.encoder_kv.weight[:, :, 0] @ row + module.encoder_kv.bias for row in counted]
                kv = [row[head * 2 * d : (head + 1) * 2 * d] for row in kv]
                k, v = [row[:d] for row in kv] + k, [row[d:] for row in kv] + v
            for n in range(H * W):
                mixed[n][head * d : (head + 1) * d] = _weighted(q[n], k, v)
        for n, row in enumerate(mixed):
            projected = module.proj_out.weight[:, :, 0] @ row + module.proj_out.bias
            out[b, :, n // W, n % W] = x[b, :, n // W, n % W] + projected
    return out


@pytest.mark.parametrize("order", get_args(QkvOrder))
@pytest.mark.parametrize("head_width", [4, 6])
def test_both_orders_of_the_rows(order: QkvOrder, head_width: int) -> None:
    module, x = _attention(order, head_width=head_width), _normal(2, C, H, W)
    torch.testing.assert_close(module(x), _by_hand(module, x, None, None, head_width), rtol=1e-4, atol=1e-5)


def test_the_orders_are_different_functions_of_equal_weights() -> None:
    one, other = _attention("per_head"), _attention("stacked")
    other.load_state_dict(one.state_dict())
    assert not torch.allclose(one(x := _normal(2, C, H, W)), other(x), atol=1e-3)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_a_sequence_adds_keys_and_values(mask: Tensor | None) -> None:
    module, x, sequence = _attention("per_head", sequence=True), _normal(2, C, H, W), _normal(2, M, S, seed=1)
    expected = _by_hand(module, x, sequence, mask, D)
    torch.testing.assert_close(module(x, sequence, mask), expected, rtol=1e-4, atol=1e-5)


def test_a_masked_sequence_is_none() -> None:
    module, x, sequence = _attention("per_head", sequence=True), _normal(2, C, H, W), _normal(2, M, S, seed=1)
    torch.testing.assert_close(module(x, sequence, torch.zeros(2, M, dtype=torch.bool)), module(x))


def _naive(module: HeadedAttention, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
    rows = []
    for b in range(len(x)):
        counted = context[b] if mask is None else context[b][mask[b]]
        q, k, v = module.to_q(x[b]), module.to_k(counted), module.to_v(counted)
        heads = [slice(i, i + D) for i in range(0, C, D)]
        rows.append(
            torch.stack(
                [
                    torch.cat([_weighted(q[n, part], list(k[:, part]), list(v[:, part])) for part in heads])
                    for n in range(x.shape[1])
                ]
            )
        )
    out: Tensor = module.to_out(torch.stack(rows))
    return out


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_attention_to_a_context(mask: Tensor | None) -> None:
    module = HeadedAttention(C, S, D)
    x, context = _normal(2, 6, C), _normal(2, M, S, seed=1)
    torch.testing.assert_close(module(x, context, mask), _naive(module, x, context, mask), rtol=1e-4, atol=1e-5)


def test_a_context_of_length_one_is_the_general_case() -> None:
    """A mask that hides nothing sends the block through the whole computation."""
    block = ContextBlock(C, D, S, one_key=False)
    randomize(block)
    x, context = _normal(2, 6, C), _normal(2, 1, S, seed=1)
    whole = block(x, context, torch.ones(2, 1, dtype=torch.bool))
    torch.testing.assert_close(block(x, context), whole, rtol=1e-5, atol=1e-6)
    padded = torch.cat([context, _normal(2, 3, S, seed=2)], 1)
    seen = torch.tensor([True, False, False, False]).expand(2, -1)
    torch.testing.assert_close(block(x, padded, seen), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("one_key", [True, False])
def test_queries_and_keys_are_trained_where_they_matter(one_key: bool) -> None:
    block = ContextBlock(C, D, S, one_key=one_key)
    frozen = {name for name, p in block.named_parameters() if not p.requires_grad}
    assert frozen == ({"attn2.to_q.weight", "attn2.to_k.weight", "norm2.weight", "norm2.bias"} if one_key else set())
    block(_normal(2, 6, C), _normal(2, 1 if one_key else M, S)).sum().backward()
    assert all(p.grad is not None for p in block.parameters() if p.requires_grad)
