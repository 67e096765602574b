import math
from typing import Any

import pytest
import torch
from torch import nn

from components.errors import ConfigError
from components.nn.attention import Attention, Block, Mlp
from components.nn.patches import PatchEmbed, sincos_positions
from components.nn.vit import VisionTransformer, seeded_init


def _vit(**changes: object) -> VisionTransformer:
    sizes: dict[str, Any] = {
        "input_px": 8,
        "patch_px": 4,
        "dim": 16,
        "depth": 2,
        "heads": 2,
        "mlp_ratio": 2.0,
        "freeze_patches": False,
    }
    with seeded_init(0):
        return VisionTransformer(**{**sizes, **changes})


def test_attention_equals_the_written_out_softmax() -> None:
    torch.manual_seed(0)
    layer, x = Attention(12, 3, qkv_bias=True), torch.randn(2, 5, 12)
    q, k, v = (part.reshape(2, 5, 3, 4) for part in layer.qkv(x).chunk(3, dim=-1))
    mixed = torch.zeros(2, 5, 3, 4)
    for head in range(3):
        weights = torch.softmax(q[:, :, head] @ k[:, :, head].transpose(1, 2) / math.sqrt(4), dim=-1)
        mixed[:, :, head] = weights @ v[:, :, head]
    torch.testing.assert_close(layer(x), layer.proj(mixed.reshape(2, 5, 12)))


def test_attention_refuses_uneven_heads() -> None:
    with pytest.raises(ConfigError, match="width 10, heads 3"):
        Attention(10, 3, qkv_bias=True)


def test_block_is_pre_norm_with_residuals() -> None:
    torch.manual_seed(0)
    block, x = Block(8, 2, mlp_ratio=3.0, qkv_bias=True), torch.randn(2, 4, 8)
    y = x + block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)))
    assert block.mlp.fc1.out_features == 24
    assert block.norm1.eps == 1e-6


def test_mlp_uses_the_exact_gelu() -> None:
    torch.manual_seed(0)
    mlp, x = Mlp(4, 6), torch.randn(3, 4)
    hidden = mlp.fc1(x)
    torch.testing.assert_close(mlp(x), mlp.fc2(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))))


def test_positions_are_sine_cosine_of_row_then_column() -> None:
    side, dim = 3, 8
    table = sincos_positions(side, dim)
    for row in range(side):
        for column in range(side):
            frequencies = [10000 ** (-k / 2) for k in range(2)]
            expected = [math.sin(row * f) for f in frequencies] + [math.cos(row * f) for f in frequencies]
            expected += [math.sin(column * f) for f in frequencies] + [math.cos(column * f) for f in frequencies]
            torch.testing.assert_close(table[row * side + column], torch.tensor(expected))


def test_positions_and_patches_refuse_what_does_not_divide() -> None:
    with pytest.raises(ConfigError, match="multiple of 4"):
        sincos_positions(2, 10)
    with pytest.raises(ConfigError, match="image 10 px, patch 4 px"):
        PatchEmbed(10, 4, 3, 8)


def test_patches_are_in_raster_order() -> None:
    layer, image = PatchEmbed(4, 2, 3, 5), torch.arange(48.0).reshape(1, 3, 4, 4)
    corner = image[:, :, 0:2, 2:4].flatten(1)  # second patch of the first row
    expected = corner @ layer.proj.weight.flatten(1).T + layer.proj.bias
    torch.testing.assert_close(layer(image)[:, 1], expected)


def test_initial_weights_follow_the_sheet() -> None:
    vit = _vit(dim=64, depth=1, heads=4, mlp_ratio=4.0)
    block = vit.blocks[0]
    for weight, fan in (
        (block.attn.qkv.weight, 64 + 64),  # three square matrices
        (block.mlp.fc1.weight, 64 + 256),
        (vit.patch_embed.proj.weight, 3 * 16 + 64),
    ):
        bound = math.sqrt(6 / fan)
        assert weight.abs().max().item() <= bound
        assert weight.abs().max().item() > 0.95 * bound
    assert vit.cls_token.abs().max().item() < 1e-5
    assert vit.pos_embed[0, 0].abs().sum().item() == 0
    assert block.attn.qkv.bias.abs().sum().item() == 0


def test_positions_are_fixed_and_patches_if_asked() -> None:
    fixed = {name for name, p in _vit(freeze_patches=True).named_parameters() if not p.requires_grad}
    assert fixed == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert {name for name, p in _vit().named_parameters() if not p.requires_grad} == {"pos_embed"}


def test_output_is_the_normed_cls_token() -> None:
    vit, x = _vit(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([vit.cls_token.expand(2, -1, -1), vit.patch_embed(x)], 1) + vit.pos_embed
    expected = vit.norm(vit.blocks(tokens))[:, 0]
    torch.testing.assert_close(vit(x), expected)


def test_seeded_init_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    with seeded_init(3):
        first = nn.Linear(3, 3)
    with seeded_init(3):
        second = nn.Linear(3, 3)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(torch.random.get_rng_state(), before)
