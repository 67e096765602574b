"""A caption read by a transformer that is trained along: what it computes, what padding hides, and its null."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.conditions.config import TextTransformerConfig
from components.conditions.container import Conditions
from components.errors import ConfigError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.generators.sampling import DiffusionSampling
from components.nn.text_transformer import TextTransformer
from components.pixels.adm import AdmConfig
from components.pixels.dit import DitConfig
from components.pixels.hybrid import HybridConfig
from components.pixels.ldm import LdmConfig
from components.pixels.mage import MageConfig
from components.rng import BatchRng, RowRng
from components.target import TargetSpec
from tests.support.folders import randomize
from tests.support.generators import PIXEL, Rows

M, N_IDS = 5, 11
IDS = FieldSpec(name="ids", dtype="int32", shape=(M,), ragged=True, nullable=True, choices=True, n_ids=N_IDS)
READ = torch.tensor([[3, 1, 4, -1, -1], [2, -1, -1, -1, -1], [1, 5, 9, 2, 6], [-1, -1, -1, -1, -1]])
TILES = TargetSpec(space="tokens", shape=(4, 4), dtype="int32", n_codes=8, image_px=8)
NETWORKS: dict[str, tuple[Any, TargetSpec]] = {
    "adm": (AdmConfig.tiny(), PIXEL),
    "adm, states as they are": (AdmConfig.tiny().model_copy(update={"sequence_dim": 8}), PIXEL),
    "ldm": (LdmConfig.tiny(), PIXEL),
    "dit": (DitConfig.tiny(), PIXEL),
    "hybrid": (HybridConfig.tiny(), PIXEL),
    "mage": (MageConfig.tiny(), TILES),
}


def _config(name: str, *others: Any, **changes: Any) -> tuple[Any, GeneratorData]:
    config, target = NETWORKS[name]
    text = TextTransformerConfig.tiny().model_copy(update={"project": "as they are" not in name, **changes})
    data = GeneratorData(target=target, dim=6, classes=None, more=(IDS,))
    return config.model_copy(update={"conditions": (*others, text)}), data


def _built(name: str, *others: Any, **changes: Any) -> Any:
    config, data = _config(name, *others, **changes)
    generator = config.build(data)
    randomize(generator)
    return generator


def _batch(generator: Any, ids: Tensor = READ) -> dict[str, Tensor]:
    rng, spec = torch.Generator().manual_seed(0), generator.spec
    x = torch.randint(0, 256 if spec.dtype == "uint8" else 8, (len(ids), *spec.shape), generator=rng)
    z = torch.randn(len(ids), 6, generator=rng)
    return {
        "target": x.to(getattr(torch, spec.dtype)),
        "representation": z,
        "ids": ids.int(),
        "ids.mask": ids[:, 0] >= 0,
    }


def _loss(generator: Any, batch: dict[str, Tensor]) -> Tensor:
    loss: Tensor = generator.loss(batch, BatchRng(1, len(batch["ids"])))
    return loss


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("beside", [False, True])
def test_a_generator_reads_captions_with_and_without_a_representation(name: str, beside: bool) -> None:
    others = NETWORKS[name][0].conditions if beside and name != "ldm" else ()
    generator = _built(name, *others, drop_prob=0.0)
    batch = _batch(generator)
    loss = _loss(generator, batch)
    loss.sum().backward()
    reader = generator.conditioner["text_transformer"]
    assert all(p.grad is not None and bool(p.grad.any()) for p in reader.encoder.parameters())
    swapped = batch | {"ids": batch["ids"].flip(1).where(batch["ids"].flip(1) >= 0, -1)}
    assert not torch.equal(_loss(generator, swapped)[2], loss[2])  # the order of tokens counts
    torch.testing.assert_close(_loss(generator, swapped)[3], loss[3])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_missing_caption_is_an_empty_one(name: str) -> None:
    generator = _built(name)
    how = type(generator.config).sampled_by
    sampling = DiffusionSampling.tiny() if how == "diffusion" else None
    ids = READ[[3, 3]].int()
    if sampling is not None:
        empty, none = (generator.sample(batch, sampling, RowRng([4, 5])) for batch in ({"ids": ids}, {}))
        assert torch.equal(empty, none)
    missing = {**_batch(generator), "ids": torch.zeros_like(READ).int(), "ids.mask": torch.zeros(4, dtype=torch.bool)}
    nothing = _batch(generator, READ[[3, 3, 3, 3]])
    torch.testing.assert_close(_loss(generator, missing), _loss(generator, nothing))


def _encoder() -> TextTransformer:
    encoder = TextTransformer(n_ids=N_IDS, n_positions=M, width=8, depth=2, heads=2, c_out=6).double()
    randomize(encoder)
    return encoder


def test_what_stands_under_the_mask_changes_nothing() -> None:
    encoder, mask = _encoder(), READ >= 0
    vector, states = encoder(READ, mask)
    for other in (0, 7, N_IDS - 1):
        for a, b in zip((vector, states), encoder(READ.where(mask, other), mask), strict=True):
            assert torch.equal(a, b)


def test_the_transformer_is_glides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written out by loops over heads and positions, from the fact sheet: rows of qkv per head, padding attended to."""
    del monkeypatch
    encoder, mask = _encoder(), READ >= 0
    w = dict(encoder.named_parameters())

    def norm(x: Tensor, name: str) -> Tensor:
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    for row in range(len(READ)):
        x = torch.stack(
            [
                w["token_embedding.weight"][READ[row, i]] + w["positional_embedding"][i]
                if mask[row, i]
                else w["padding_embedding"][i]
                for i in range(M)
            ]
        )
        for i in range(2):
            name = f"transformer.resblocks.{i}"
            qkv = linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_qkv")
            heads = []
            for head in range(2):
                q, k, v = (qkv[:, 12 * head + 4 * part :][:, :4] for part in range(3))
                heads.append((q @ k.T / 2).softmax(1) @ v)
            x = x + linear(torch.cat(heads, 1), f"{name}.attn.c_proj")
            hidden = linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
            x = x + linear(hidden * (1 + torch.erf(hidden / 2**0.5)) / 2, f"{name}.mlp.c_proj")
        states = norm(x, "final_ln")
        torch.testing.assert_close(encoder(READ, mask)[1][row], states)
        torch.testing.assert_close(encoder(READ, mask)[0][row], linear(states[-1:], "transformer_proj")[0])


def test_guidance_pushes_away_from_the_empty_caption_and_off_is_one_pass() -> None:
    generator = _built("adm").eval()
    batch = {"ids": READ[:3].int()}
    passes: list[int] = []
    generator.net.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))

    def sample(guidance: float, batch: dict[str, Tensor]) -> Tensor:
        how = DiffusionSampling.tiny().model_copy(update={"guidance": guidance, "steps": 2})
        made: Tensor = generator.sample(batch, how, RowRng(range(3)))
        return made

    plain = sample(0.0, batch)
    assert passes == [3, 3]
    guided = sample(2.0, batch)
    assert passes[2:] == [6, 6]
    assert not torch.equal(plain, guided)
    nothing = {"ids": READ[[3, 3, 3]].int()}
    torch.testing.assert_close(sample(2.0, nothing).float(), sample(0.0, nothing).float(), rtol=0, atol=1)


def test_the_two_ports_get_the_states_and_the_last_of_them() -> None:
    class Net(nn.Module):
        vector_width, sequence_width, c_extra = 6, 8, 0

    config = TextTransformerConfig.tiny().model_copy(update={"project": False})
    conditions = Conditions([config], Net(), [IDS])
    ports, null = conditions.sampling_ports({"ids": READ.int()}, RowRng(range(4)))
    encoder: Any = conditions["text_transformer"].encoder  # type: ignore[union-attr]
    vector, states = encoder(READ, READ >= 0)
    assert torch.equal(ports.sequence, states)  # type: ignore[arg-type]
    assert torch.equal(ports.vector, vector)  # type: ignore[arg-type]
    assert ports.mask is None
    torch.testing.assert_close(null.sequence[0], states[3])  # type: ignore[index]


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ConfigError, match="port of its own width"):
        _built("adm", project=False)
    config, data = _config("adm")
    plain = data.model_copy(update={"more": (IDS.model_copy(update={"n_ids": None}),)})
    with pytest.raises(ConfigError, match="no ids of tokens"):
        config.build(plain)
    with pytest.raises(ValueError, match="does not divide width"):
        TextTransformerConfig.model_validate(TextTransformerConfig.tiny().model_dump() | {"heads": 3})


def test_rows_of_a_cache_are_read() -> None:
    generator = _built("adm")
    generator.fit(Rows(_batch(generator)), 0)
    assert generator.conditions == ("ids",)
    assert generator.required == ()
