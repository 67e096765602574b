import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as tf

from components.codecs.config import VqganConfig
from components.codecs.vqgan import ResBlock
from components.nn.vit import seeded_init

TINY = VqganConfig.tiny()


def changed(**values: object) -> VqganConfig:
    return VqganConfig.model_validate(TINY.model_dump() | values)


def test_nearest_code_is_that_of_brute_force() -> None:
    with seeded_init(0):
        codebook = TINY.build().quantize
        torch.nn.init.normal_(codebook.embedding.weight)
        z_e = torch.randn(2, TINY.code_dim, 4, 4)
    codebook.requires_grad_(False)
    index = codebook.nearest(z_e)
    for b, y, x in [(0, 0, 0), (1, 2, 3), (0, 3, 1), (1, 0, 3)]:
        distances = [float((z_e[b, :, y, x] - code).square().sum()) for code in codebook.embedding.weight]
        assert int(index[b, y, x]) == distances.index(min(distances))
    assert torch.equal(codebook(index)[1, :, 2, 3], codebook.embedding.weight[index[1, 2, 3]])


@pytest.mark.parametrize("shortcut", ["branch", "input"])
def test_residual_block(shortcut: str) -> None:
    with seeded_init(0):
        block = ResBlock(4, 8, changed(shortcut=shortcut))
        x = torch.randn(2, 4, 6, 6)

    def half(x: torch.Tensor, norm: torch.nn.GroupNorm, conv: torch.nn.Conv2d) -> torch.Tensor:
        grouped = x.reshape(len(x), norm.num_groups, -1)
        mean, var = grouped.mean(2, keepdim=True), grouped.var(2, unbiased=False, keepdim=True)
        y = ((grouped - mean) / (var + 1e-6).sqrt()).reshape(x.shape)
        return tf.conv2d(y * torch.sigmoid(y), conv.weight, padding=1)

    h = half(half(x, block.norm1, block.conv1), block.norm2, block.conv2)
    read = h if shortcut == "branch" else x
    expected = torch.einsum("oi,bihw->bohw", block.nin_shortcut.weight[:, :, 0, 0], read) + h
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_latents_decode_as_their_tokens_do() -> None:
    with seeded_init(0):
        tokens = TINY.build().eval()
    latents = changed(space="latents").build().eval()
    latents.load_state_dict(tokens.state_dict())
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.nn.init.normal_(tokens.quantize.embedding.weight, std=0.3)
        latents.load_state_dict(tokens.state_dict())
        assert torch.equal(latents.decode(latents.encode(images)), tokens.decode(tokens.encode(images)))


def test_resolution_and_tokens_per_side() -> None:
    assert changed(px=32, multipliers=(1, 2, 4)).side == 8
    assert changed(px=256, multipliers=(1, 1, 2, 2, 4)).side == 16


@pytest.mark.parametrize(
    ("values", "fix"), [({"px": 9}, "multiple of 2"), ({"groups": 3}, "lower groups"), ({"n_codes": 1}, "n_codes")]
)
def test_sizes_that_do_not_fit_are_refused(values: dict[str, object], fix: str) -> None:
    with pytest.raises(ValidationError, match=fix):
        changed(**values)
