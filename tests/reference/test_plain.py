"""The plain implementation that speed is measured against computes what ours computes: same samples, same encodings."""

from typing import Any

import torch

from benchmarks.plain import layers
from benchmarks.plain import mage as plain_mage
from benchmarks.plain import rdm as plain_rdm
from components.codecs.config import VqganConfig
from components.encoders.config import MoCoV3Config
from components.generators.config import GeneratorData
from components.generators.sampling import DiffusionSampling, MaskedSampling
from components.nn.vit import seeded_init
from components.pixels.mage import MageConfig
from components.rdm import RdmConfig
from components.rng import RowRng
from components.target import TargetSpec
from tests.support.folders import randomize
from tests.support.generators import build_rdm

TOKENS = TargetSpec(space="tokens", shape=(4, 4), dtype="int32", n_codes=8, image_px=8)


def test_ddim_samples() -> None:
    rdm = build_rdm(RdmConfig.tiny(), None).eval()
    randomize(rdm)
    how = DiffusionSampling(kind="diffusion", sampler="ddim", steps=50, eta=1.0, spacing="reference", guidance=0.0)
    plain = plain_rdm.sample(rdm, plain_rdm.Averaged(rdm), RowRng(range(5)), steps=50, eta=1.0)
    torch.testing.assert_close(rdm.sample({}, how, RowRng(range(5))), plain, rtol=1e-4, atol=1e-5)


def test_mage_samples() -> None:
    mage: Any = MageConfig.tiny().build(GeneratorData(target=TOKENS, dim=6, classes=None)).eval()
    randomize(mage)
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    for guidance in (0.0, 1.0):
        how = MaskedSampling(kind="masked", steps=6, temperature=3.0, guidance=guidance)
        ours = mage.sample({"representation": z}, how, RowRng(range(4)))
        plain = plain_mage.sample(mage, z, RowRng(range(4)), steps=6, temperature=3.0, guidance=guidance)
        assert torch.equal(ours.long(), plain)


def test_representations_tokens_and_pictures() -> None:
    config = MoCoV3Config.tiny()
    encoder = config.build()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layers.represent(encoder, images), encoder(images), rtol=1e-4, atol=1e-5)
    with seeded_init(0):
        codec: Any = VqganConfig.tiny().build().eval()
    pixels = torch.nn.functional.interpolate(images, 8)
    ids = layers.tokens(codec, pixels)
    assert torch.equal(ids, codec.encode(pixels).long())
    pictures = layers.pictures(codec, ids).clamp(0, 1)
    torch.testing.assert_close(pictures, codec.decode(ids.to(torch.int32)), rtol=1e-4, atol=1e-5)


def test_a_training_step_of_each() -> None:
    """They run, and their losses are those of fresh models."""
    encoder = MoCoV3Config.tiny().build()
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    rdm = build_rdm(RdmConfig.tiny(), None)
    loss = plain_rdm.Training(rdm, encoder).step(images)
    assert abs(loss - float(encoder(images).square().mean())) < 1e-4
    with seeded_init(0):
        codec: Any = VqganConfig.tiny().build().eval().requires_grad_(False)
    mage: Any = MageConfig.tiny().build(GeneratorData(target=TOKENS, dim=8, classes=None))
    assert 1.0 < plain_mage.Training(mage, encoder, codec).step(images) < 4.0
