"""MAGE as published: tensors, masks, decoding. Provenance: LTH14/rcg @ 0c4433c, numbers measured on its own code."""

import pytest
import torch

from components.generators.config import GeneratorData, MaskConfig
from components.generators.masked import MaskedTokens, mask_ratio, masked_counts
from components.generators.sampling import MaskedSampling
from components.pixels.mage import MageConfig
from components.rng import BatchRng, image_rng
from components.target import TargetSpec
from tests.support.generators import conditions
from tests.support.inventory import expected_tensors

TOKENS = TargetSpec(space="tokens", shape=(16, 16), dtype="int32", n_codes=1024, image_px=256)
BASE = MageConfig(
    kind="mage",
    conditions=conditions("representation"),
    width=768,
    depth=12,
    heads=12,
    decoder_depth=8,
    decoder_heads=16,
    mlp_ratio=4,
    drop_prob=0.1,
    label_smoothing=0.1,
    mask=MaskConfig(mean=0.75, std=0.25, least=0.5),
)
NEVER_READ = (
    "cls_token",
    "mask_token",
    "pos_embed",
    "decoder_pos_embed",
    "patch_embed.",
    "decoder_pred.",
    "token_emb.position_ids",
)
RENAMED = {
    "latent_prior_proj.weight": "conditioner.representation.project.weight",
    "latent_prior_proj.bias": "conditioner.representation.project.bias",
    "fake_latent": "conditioner.representation.null",
}
N_LEGACY_WORDS = 1000


def tiny(**values: object) -> MaskedTokens:
    config = MageConfig.tiny().model_copy(update={"mask": BASE.mask, "drop_prob": 0.0, **values})
    return config.build(GeneratorData(target=TOKENS.model_copy(update={"n_codes": 8}), dim=6, classes=None))


def test_tensors_of_the_base_model() -> None:
    with torch.device("meta"):
        model = BASE.build(GeneratorData(target=TOKENS, dim=256, classes=None))
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    expected = {}
    for name, shape in expected_tensors("mage_b_tensors.txt").items():
        if name in NEVER_READ or name.startswith(tuple(n for n in NEVER_READ if n.endswith("."))):
            continue
        fitted = tuple(size - N_LEGACY_WORDS if size == 2025 else size for size in shape)
        fitted = (1, 1, 1024) if name == "mlm_layer.bias" else fitted  # the mask token is never predicted
        expected[RENAMED.get(name, f"transformer.{name}")] = fitted
    assert ours == expected
    trained = 146_277_097 - 1_182_720 - N_LEGACY_WORDS * 768 - (N_LEGACY_WORDS + 1)
    assert sum(p.numel() for p in model.parameters()) == trained


def test_masked_counts_of_20_iterations() -> None:
    assert masked_counts(256, 20) == [
        255,
        252,
        248,
        243,
        236,
        228,
        218,
        207,
        194,
        181,
        166,
        150,
        133,
        116,
        97,
        79,
        59,
        40,
        20,
        1,
    ]


def test_mask_ratio_statistics() -> None:
    ratio = mask_ratio(BASE.mask, torch.rand(200_000, generator=torch.Generator().manual_seed(0)))
    assert float(ratio.mean()) == pytest.approx(0.748, abs=0.004)  # measured; the distribution is symmetric about 0.75
    assert float(ratio.std()) == pytest.approx(0.135, abs=0.002)
    assert 0.5 <= float(ratio.min()) <= float(ratio.max()) <= 1.0


def test_encoder_sees_129_positions() -> None:
    seen = []
    model = tiny()
    model.transformer.norm.register_forward_hook(lambda _module, given, _out: seen.append(given[0].shape[1]))
    ids = torch.zeros(2, 16, 16, dtype=torch.int32)
    for seed in range(5):
        model.loss({"target": ids, "representation": torch.randn(2, 6)}, BatchRng(seed, 2))
    assert seen == [129] * 5


def test_guidance_rises_linearly_and_adds_to_the_conditional() -> None:
    """s_i = cfg (i + 1) / N; logits = (1 + s_i) cond - s_i uncond."""
    model, scales = tiny(), []
    cond, uncond = torch.randn(2, 1, 256, 8, generator=torch.Generator().manual_seed(0)).unbind(0)

    def at(logits: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return logits.gather(1, hidden[:, :, None].expand(-1, -1, 8))

    def unknown(ids: torch.Tensor, hidden: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return torch.cat([at(cond, hidden[:1]), at(uncond, hidden[:1])])

    inner = model._guided

    def guided(ids: torch.Tensor, hidden: torch.Tensor, condition: torch.Tensor, scale: float) -> torch.Tensor:
        logits = inner(ids, hidden, condition, scale)
        torch.testing.assert_close(logits, (1 + scale) * at(cond, hidden) - scale * at(uncond, hidden))
        scales.append(scale)
        return logits

    model.transformer.unknown = unknown  # type: ignore[method-assign]
    model._guided = guided  # type: ignore[method-assign]
    how = MaskedSampling(kind="masked", steps=20, temperature=6.0, guidance=1.0)
    model.sample({"representation": torch.randn(1, 6)}, how, image_rng(0, 0, 1, stream="pixels"))
    assert scales == pytest.approx([(i + 1) / 20 for i in range(20)])
