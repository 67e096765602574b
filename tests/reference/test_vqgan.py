"""The published tokenizer: tensors and size. Provenance: LTH14/rcg @ 0c4433c, counted on its own model."""

import pytest
import torch

from components.codecs.vqgan import ResBlock, VqganConfig
from components.nn.vit import seeded_init
from tests.reference.inventory import expected_tensors

PAPER = VqganConfig(
    kind="vqgan", px=256, width=128, multipliers=(1, 1, 2, 2, 4), n_blocks=2, groups=32, n_codes=1024, code_dim=256,
    shortcut="branch", space="tokens",
)  # fmt: skip


def test_tensors_of_the_published_tokenizer() -> None:
    with torch.device("meta"):
        vqgan = PAPER.build()
    ours = {name: tuple(value.shape) for name, value in vqgan.state_dict().items()}
    assert ours == expected_tensors("vqgan_tensors.txt")
    assert len(ours) == 168
    assert sum(p.numel() for p in vqgan.parameters()) == 54_515_587
    assert vqgan.spec.shape == (16, 16)


def test_a_block_that_changes_channels_forgets_its_input() -> None:
    """nin(h) + h of the branch h: an input that GroupNorm makes vanish leaves no trace, unlike in a ResNet."""
    shift = 5.0  # removed by the first norm, but not by a shortcut that reads the input
    results = {}
    for shortcut in ("branch", "input"):
        with seeded_init(0):
            block = ResBlock(32, 64, PAPER.model_copy(update={"shortcut": shortcut}))
            x = torch.randn(1, 32, 4, 4)
        with torch.no_grad():
            results[shortcut] = float((block(x + shift) - block(x)).abs().max())
    assert results["branch"] == pytest.approx(0, abs=1e-3)
    assert results["input"] > 1
