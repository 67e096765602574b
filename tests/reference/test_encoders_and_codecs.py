"""Encoders and codecs against oracles written from the reference's description, on random weights.

Provenance: LTH14/rcg @ 0c4433c, facebookresearch/moco-v3, CompVis/latent-diffusion as described in their papers and
checked on their code. Tolerance: 1e-5 of the result's scale, float32 against float64.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.codecs.config import KlConfig, VqF8Config, VqganConfig
from components.encoders.config import DeitConfig, DinoConfig, MoCoV3Config
from components.interop.checkpoint import export_tensors
from components.nn.patches import sincos_positions
from tests.support import oracles

VIT: dict[str, Any] = {"input_px": 24, "patch_px": 8, "width": 48, "depth": 3, "heads": 4, "mlp_ratio": 4.0}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights of about their usual scale, BatchNorm statistics included."""
    rng = torch.Generator().manual_seed(seed)
    for name, t in module.state_dict().items():
        if not t.is_floating_point():
            continue
        noise = torch.randn(t.shape, generator=rng)
        scale = 1 / math.sqrt(t[0].numel()) if t.ndim > 1 else 0.2
        centered = 1.0 if t.ndim == 1 and name.endswith("weight") else 0.0
        t.copy_(noise.square() + 0.5 if name.endswith("running_var") else centered + scale * noise)
    return module.eval()


def close(got: Tensor, expected: Tensor) -> None:
    error = float((got.double() - expected).abs().max() / expected.abs().max())
    assert got.shape == expected.shape
    assert error < 1e-5, error


def pictures(px: int, n: int = 2) -> Tensor:
    return torch.rand(n, 3, px, px, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("px", [24, 32, 17])
@pytest.mark.parametrize(
    ("config", "head"),
    [
        (MoCoV3Config.tiny(), oracles.moco_head),
        (DinoConfig.tiny(), oracles.dino_head),
        (DinoConfig.tiny().model_copy(update={"output": "cls", "kind": "ibot"}), None),
        (DeitConfig.tiny().model_copy(update={"output": "projector"}), lambda w, x: oracles.linear(w, "head", x)),
    ],
    ids=["mocov3", "dino", "ibot-cls", "deit"],
)
@torch.no_grad()
def test_representations(config: Any, head: Any, px: int) -> None:
    """Normalize, resize without antialias, ViT, head, standardize: in this order."""
    encoder = config.model_copy(update=VIT).build()
    randomized(encoder.network)
    x = pictures(px)
    got = encoder(x)
    w = oracles.doubles(encoder.network.state_dict())
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD))
    z = oracles.vit_cls(w, oracles.bicubic((x.double() - mean) / std, 24), heads=4, depth=3)
    close(got, oracles.standardized(z if head is None else head(w, z)))
    torch.testing.assert_close(got.square().sum(1), torch.full((2,), config.model_copy(update=VIT).dim - 1.0))


def test_sincos_positions() -> None:
    """sin and cos of the row, then of the column; frequencies 10000^(-k / (D / 4))."""
    side, dim = 3, 16
    ours = sincos_positions(side, dim)
    for row in range(side):
        for column in range(side):
            wave = [10000 ** (-k / (dim / 4)) for k in range(dim // 4)]
            expected = [f(at * w) for at in (row, column) for f in (math.sin, math.cos) for w in wave]
            assert ours[row * side + column].tolist() == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def test_vqgan() -> None:
    config = VqganConfig.tiny().model_copy(
        update={"px": 16, "width": 8, "multipliers": (1, 1, 2), "n_blocks": 2, "groups": 4, "n_codes": 40}
    )
    codec = config.build()
    randomized(codec)
    w, x = oracles.doubles(export_tensors("vqgan", codec)), pictures(16)
    z_e = oracles.vqgan_encode(w, x.double(), levels=3, blocks=2, groups=4)
    close(codec.encoder(x), z_e)
    index = oracles.nearest_codes(w["quantize.embedding.weight"], z_e)
    assert torch.equal(codec.encode(x).long(), index)
    made = oracles.vqgan_decode(w, index, levels=3, blocks=2, groups=4)
    close(codec.decoder(codec.quantize(index)), made)
    close(codec.decode(codec.encode(x)), made.clamp(0, 1))


@torch.no_grad()
def test_the_block_that_forgets_its_input() -> None:
    config = VqganConfig.tiny().model_copy(update={"px": 16, "multipliers": (1, 2)})
    codec = config.build()
    randomized(codec)
    block = codec.encoder.down[1]["block"][0]  # type: ignore[index]
    w = oracles.doubles({f"b.{name}": t for name, t in block.state_dict().items()})
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    close(block(x), oracles._vqgan_block(w, "b", x.double(), groups=2))


AUTOENCODER = {"px": 16, "width": 8, "multipliers": (1, 2, 2), "n_blocks": 2, "groups": 4}


@torch.no_grad()
def test_kl_posterior_and_scale() -> None:
    config = KlConfig.tiny().model_copy(update={**AUTOENCODER, "scale": 0.18215})
    codec = config.build()
    randomized(codec)
    w, x = oracles.doubles(codec.state_dict()), pictures(16)
    moments = oracles.ldm_encode(w, 2 * x.double() - 1, levels=3, blocks=2, groups=4)
    mean, log_variance = moments[:, :2], moments[:, 2:]
    close(codec.encode(x), 0.18215 * mean)
    close(codec.moments(x)[1], (log_variance.clamp(-30, 20) / 2).exp())
    made = oracles.ldm_decode(w, mean, levels=3, blocks=2, groups=4)
    close(codec.decode((0.18215 * mean).float()), ((made + 1) / 2).clamp(0, 1))


@torch.no_grad()
def test_kl_samples_are_of_the_posterior_and_a_function_of_the_picture() -> None:
    config = KlConfig.tiny().model_copy(update={"posterior": "sample", "scale": 2.0})
    codec = config.build()
    randomized(codec)
    x = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn, (mean, std) = codec.encode(x), codec.moments(x)
    noise = (drawn / 2.0 - mean) / std
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 0.5
    torch.testing.assert_close(codec.encode(x[3:4]), drawn[3:4])


@torch.no_grad()
def test_vq_f8_decodes_through_the_quantizer() -> None:
    config = VqF8Config.tiny().model_copy(update={**AUTOENCODER, "attention_levels": (2,), "n_codes": 30})
    codec = config.build()
    randomized(codec)
    w, x = oracles.doubles(codec.state_dict()), pictures(16)
    z = oracles.ldm_encode(w, 2 * x.double() - 1, levels=3, blocks=2, groups=4)
    close(codec.encode(x), z)
    codes = w["quantize.embedding.weight"]
    quantized = codes[oracles.nearest_codes(codes, z)].permute(0, 3, 1, 2)
    made = oracles.ldm_decode(w, quantized, levels=3, blocks=2, groups=4)
    close(codec.decode(codec.encode(x)), ((made + 1) / 2).clamp(0, 1))
