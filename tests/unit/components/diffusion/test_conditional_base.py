"""A start that is read off the condition: what it says, and rows without the condition."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from components.conditions.config import VectorConfig
from components.diffusion.bases.conditional import Conditional
from components.diffusion.bases.config import ConditionalConfig
from components.errors import ConfigError, WeightsError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.generators.files import save_generator
from components.generators.sampling import DiffusionSampling
from components.interop.checkpoint import export_tensors, import_tensors
from components.rdm import RdmConfig, load_rdm
from components.rng import BatchRng, RowRng
from tests.support.folders import FolderArtifact
from tests.support.generators import PIXEL, Rows, build_prior

TINY = RdmConfig.tiny()
D, W, N = TINY.dim, 5, 400
BASE = ConditionalConfig.tiny()
TEXT = FieldSpec(name="text", dtype="float32", shape=(W,), nullable=True)
READS = VectorConfig(kind="vector", field="text", port="vector", drop_prob=0.1, missing="null")
DEVIATIONS = 0.3 + 0.4 * (torch.arange(D) % 2)


def config(**base: Any) -> RdmConfig:
    given = {"conditions": (READS,), "base": BASE.model_dump() | base}
    return RdmConfig.model_validate(TINY.model_dump() | given)


def build(**base: Any) -> Diffusion:
    return config(**base).build(GeneratorData(target=PIXEL, dim=D, classes=None, more=(TEXT,)))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def means(text: Tensor) -> Tensor:
    """E[z | text]: one of two points, by the sign of one number."""
    return 2.0 + torch.where(text[:, :1] > 0, 1.5, -1.5) * torch.linspace(0.5, 1.5, D)


def rows() -> dict[str, Tensor]:
    text = 0.2 * normal(N, W)
    text[:, 0] = torch.where(text[:, 0] > 0, 2.0, -2.0)
    return {"representation": means(text) + DEVIATIONS * normal(N, D, seed=1), "text": text}


def fitted(**base: Any) -> Diffusion:
    rdm = build(**base)
    rdm.fit(Rows(rows()), 0)
    return rdm


def test_a_row_starts_where_its_condition_says_as_wide_as_that_leaves_open() -> None:
    batch, rdm = rows(), fitted()
    base, mask = rdm.process.base, torch.arange(N) != 7
    component = base.sampled({"text": batch["text"], "text.mask": mask}, RowRng(range(N)))
    assert component is not None
    frame = base.frame(component)
    error = (frame.loc - means(batch["text"]))[mask].abs().mean()
    assert error < 0.15, "the mean of z where only the text is known"
    torch.testing.assert_close(frame.scale[mask].mean(0), DEVIATIONS, atol=0.12, rtol=0)
    z = batch["representation"]
    torch.testing.assert_close(frame.loc[7], z.mean(0))
    torch.testing.assert_close(frame.scale[7], z.std(0, correction=0))
    again = base.of_rows(z, {"text": batch["text"], "text.mask": mask})
    assert component.equal(again), "training and sampling start alike"
    none = base.sampled({}, RowRng(range(3)))
    assert none is not None
    torch.testing.assert_close(none[:, 0], z.mean(0).expand(3, -1))


def test_few_rows_and_no_text_are_rows_like_any_other() -> None:
    batch, rdm = rows(), build(kappa=2.0)
    rdm.fit(Rows(batch | {"text": torch.zeros(N, W)}), 0)
    base, text = rdm.process.base, batch["text"]
    told, none = (base.sampled(given, RowRng(range(N))) for given in ({"text": text}, {}))
    assert told is not None
    assert none is not None
    torch.testing.assert_close(told, none, msg="no training row has a text, so a text says nothing")
    torch.testing.assert_close(base.frame(told).scale, 2.0 * told[:, 1])
    assert rdm.loss(batch, BatchRng(0, N)).isfinite().all()
    assert not list(base.parameters())


def test_a_saved_one_draws_the_same_and_a_row_does_not_depend_on_others(tmp_path: Path) -> None:
    rdm, text = fitted(), rows()["text"][:6]
    how = DiffusionSampling.tiny().model_copy(update={"guidance": 1.0})
    drawn = rdm.sample({"text": text}, how, RowRng(range(6)))
    save_generator(rdm, out := FolderArtifact(tmp_path))
    loaded = load_rdm(out)
    assert loaded.sample({"text": text}, how, RowRng(range(6))).equal(drawn)
    torch.testing.assert_close(loaded.sample({"text": text[4:]}, how, RowRng([4, 5])), drawn[4:])


def test_mistakes_are_named() -> None:
    with pytest.raises(ValidationError, match="base reads text, which is no condition"):
        RdmConfig.model_validate(config().model_dump() | {"conditions": ()})
    ragged = TEXT.model_copy(update={"ragged": True})
    with pytest.raises(ConfigError, match="chosen by a vector"):
        Conditional(BASE, dim=D, fields=(ragged,))
    prior = build_prior("corgi", base=BASE.model_dump())
    with pytest.raises(WeightsError, match="cannot hold a base that is read off a condition"):
        import_tensors("corgi", export_tensors("corgi", prior), prior)
