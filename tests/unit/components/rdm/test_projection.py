"""The representation generator without diffusion: what it learns, and that its samples have no noise."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from components.errors import ConfigError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.generators.direct import Direct
from components.generators.files import save_generator
from components.generators.sampling import DiffusionSampling, DirectSampling
from components.rdm import RdmProjectionConfig, load_rdm
from components.rng import BatchRng, RowRng
from tests.support.folders import FolderArtifact, randomize
from tests.support.generators import PIXEL, Rows

TINY = RdmProjectionConfig.tiny()
D, W = TINY.dim, 5
TEXT = FieldSpec(name="text", dtype="float32", shape=(W,), nullable=True)
HOW = DirectSampling(kind="direct", guidance=0.0)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(*, random: bool = True, **changes: object) -> Direct:
    made = TINY.model_copy(update=changes).build(GeneratorData(target=PIXEL, dim=D, classes=None, more=(TEXT,)))
    made.fit(Rows({"representation": normal(30, D, seed=7), "text": normal(30, W)}), 0)
    if random:
        randomize(made.net)
    return made


def test_the_loss_is_squared_error_and_minus_the_log_share_of_the_own_row() -> None:
    z, text = normal(6, D), normal(6, W, seed=1)
    batch, rdm = {"representation": z, "text": text}, build()
    dropped = torch.zeros(6, dtype=torch.bool)
    seed = next(s for s in range(99) if torch.equal(BatchRng(s, 6).uniform() < TINY.conditions[0].drop_prob, dropped))
    guess = rdm.sample({"text": text}, HOW, RowRng(range(6)))
    cosine = torch.nn.functional.cosine_similarity
    for i, found in enumerate(rdm.loss(batch, BatchRng(seed, 6))):
        rows = torch.cat([z[i : i + 1], rdm.rivals])
        shares = (cosine(guess[i : i + 1], rows) / TINY.temperature).exp()
        expected = (guess[i] - z[i]).square().mean() - TINY.contrast * (shares[0] / shares.sum()).log()
        torch.testing.assert_close(found, expected)
    alone = rdm.loss({name: rows[:1] for name, rows in batch.items()}, BatchRng(seed, 6, stop=1))
    torch.testing.assert_close(alone[0], rdm.loss(batch, BatchRng(seed, 6))[0])


def test_a_caption_has_one_point_and_guidance_leads_away_from_none(tmp_path: Path) -> None:
    rdm = build()
    text = normal(1, W).expand(4, -1)
    one = rdm.sample({"text": text}, HOW, RowRng(range(4)))
    torch.testing.assert_close(one, one[:1].expand(4, -1))
    null = rdm.sample({}, HOW, RowRng(range(4)))
    guided = rdm.sample({"text": text}, HOW.model_copy(update={"guidance": 1.5}), RowRng(range(4)))
    torch.testing.assert_close(guided, one + 1.5 * (one - null))
    out = FolderArtifact(tmp_path)
    save_generator(rdm, out)
    assert load_rdm(out).sample({"text": text}, HOW, RowRng([9] * 4)).equal(one)


@pytest.mark.parametrize("contrast", [0.0, 0.3])
@pytest.mark.parametrize("random", [False, True], ids=["from zero", "random"])
def test_contrast_and_error_both_teach(contrast: float, *, random: bool) -> None:
    text = normal(40, W)
    z = torch.tanh(text @ normal(W, D, seed=3))
    rdm = build(random=random, contrast=contrast)
    rdm.fit(Rows({"representation": z, "text": text}), 0)
    before = torch.cosine_similarity(rdm.sample({"text": text}, HOW, RowRng(range(40))), z).mean()
    optimizer = torch.optim.Adam(rdm.parameters(), lr=1e-2)
    for step in range(180):
        optimizer.zero_grad()
        rdm.loss({"representation": z, "text": text}, BatchRng(step, 40)).mean().backward()
        optimizer.step()
    after = torch.cosine_similarity(rdm.sample({"text": text}, HOW, RowRng(range(40))), z).mean()
    assert after > before + 0.6


def test_mistakes_are_named() -> None:
    with pytest.raises(ValidationError, match="without a condition is one constant"):
        RdmProjectionConfig.model_validate(TINY.model_dump() | {"conditions": []})
    with pytest.raises(ConfigError, match="kind: direct"):
        build().sample({}, DiffusionSampling.tiny(), RowRng([0]))
    with pytest.raises(ConfigError, match=r"rdm\.model\.dim: 9"):
        TINY.build(GeneratorData(target=PIXEL, dim=9, classes=None, more=(TEXT,)))
