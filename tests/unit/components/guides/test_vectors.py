"""Guides to a text and to a representation: what is exact, what training makes of them, and what does not fit."""

from typing import Any

import pytest
import torch
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.guidance import guided_by
from components.diffusion.network import Network
from components.diffusion.samplers import Denoised
from components.diffusion.schedule import ScheduleConfig
from components.errors import ConfigError
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.guides.config import MlpGuideConfig, UNetGuideConfig
from components.guides.training import GuideTrainable, hits_by_quarter
from components.guides.vectors import RepresentationGuide
from components.nn.vit import seeded_init
from components.rng import BatchRng
from components.target import EventSpec
from components.training.config import OptimConfig
from components.training.optim import adamw
from tests.support.generators import PIXEL

D, K = 6, 3
COSINE = ScheduleConfig(kind="cosine", n_times=1000)
TEXT = FieldSpec(name="text", dtype="float32", shape=(5,), ragged=True, nullable=True, choices=True)
DATA = GeneratorData(target=PIXEL, dim=4, classes=None, more=(TEXT,))


class Exact(Network):
    """E[z | x_t] where x0 is N(0, I) and z = A x0, with orthonormal rows: sqrt(ab) A x_t, of variance 1 - ab."""

    input_weight = "a"

    def __init__(self, a: Float[Tensor, "k d"]) -> None:
        super().__init__(vector_width=None)
        self.a = torch.nn.Parameter(a)

    def time_vectors(self, t: Int[Tensor, " n"]) -> Float[Tensor, "n 1"]:
        return t[:, None].float()

    def forward(self, x_t: Float[Tensor, "b d"], _time: Tensor, _ports: Ports) -> Float[Tensor, "b k"]:
        return x_t @ self.a.T  # of the scaled input


@pytest.mark.parametrize("t", [10, 500, 990])
def test_an_exact_guide_makes_the_unconditional_denoiser_the_conditional_one(t: int) -> None:
    rng = torch.Generator().manual_seed(0)
    a = torch.linalg.qr(torch.randn(D, K, generator=rng, dtype=torch.float64))[0].T
    config = UNetGuideConfig.tiny().model_copy(update={"schedule": COSINE, "recognizes": "representation"})
    spec = EventSpec(space="representations", shape=(D,), dtype="float32", n_codes=None)
    guide = RepresentationGuide(config, DATA, spec=spec, network=Exact(a), standardize=False).double()
    ab = float(guide.process.ab[t])
    guide.log_variance.data.fill_(torch.tensor(1 - ab, dtype=torch.float64).log())
    x_t, z = (torch.randn(5, n, generator=rng, dtype=torch.float64) for n in (D, K))
    z[4] = 0  # nothing to lead to

    def unconditional(x_t: Tensor, _t: int, _ports: Ports) -> Denoised:
        return Denoised(ab**0.5 * x_t, None)

    def log_likelihood(x_t: Tensor, t: int) -> Tensor:
        return guide.log_likelihood(x_t, t, z)

    found = guided_by(unconditional, log_likelihood, 1.0, {t: ab}, {t})(x_t, t, Ports()).x0
    free = ab**0.5 * x_t
    exact = z @ a + free - free @ a.T @ a
    torch.testing.assert_close(found[:4], exact[:4], rtol=1e-6, atol=1e-6)
    assert torch.equal(found[4], free[4])


def _rows(n: int, seed: int) -> dict[str, Tensor]:
    """Bars in one of three places; each place has its text and its representation."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=rng)
    target = torch.full((n, 1, 8, 8), 40, dtype=torch.uint8)
    for place in range(3):
        target[y == place, :, 1 + 2 * place : 3 + 2 * place] = 220
    fixed = torch.Generator().manual_seed(9)
    texts, seen = torch.randn(3, 5, generator=fixed), torch.randn(3, 4, generator=fixed)
    return {"target": target, "text": texts[y], "representation": seen[y]}


@pytest.mark.parametrize(("recognizes", "least"), [("text", 0.9), ("representation", 0.9)])
def test_training_recognizes_through_noise_and_leads_there(recognizes: str, least: float) -> None:
    config = UNetGuideConfig.tiny().model_copy(update={"recognizes": recognizes})
    with seeded_init(0):
        guide = config.build(DATA)
    trainable = GuideTrainable(guide)
    fast = OptimConfig.tiny().model_copy(update={"lr": 5e-3})
    optimizer = adamw(trainable.optimizer_parameters()[0], fast)
    rows = _rows(512, 0)
    for step in range(60):
        at = torch.randint(512, (16,), generator=torch.Generator().manual_seed(step))
        batch = {name: values[at] for name, values in rows.items()}
        optimizer.zero_grad()
        trainable(batch, BatchRng(step, 16), 0)[0].backward()
        optimizer.step()
    held_out = _rows(128, 1)
    by_quarter = [hit / 128 for hit in hits_by_quarter(guide, held_out, BatchRng(5, 128), 1)]
    assert by_quarter[0] > least
    assert by_quarter[0] > by_quarter[3]
    assert by_quarter[0] > guide.chance(held_out[guide.field]) + 0.2
    x = guide.clean_rows(held_out).requires_grad_()
    y = held_out[guide.field].roll(1, 0)
    (pull,) = torch.autograd.grad(guide.log_likelihood(x, 100, y).sum(), x)
    step = 1e-2 * pull / pull.flatten(1).norm(dim=1)[:, None, None, None]
    gained = guide.log_likelihood(x + step, 100, y) - guide.log_likelihood(x, 100, y)
    assert float(gained.detach().sum()) > 0


def test_equal_captions_are_all_right_and_an_empty_one_leads_nowhere() -> None:
    guide: Any = UNetGuideConfig.tiny().model_copy(update={"recognizes": "text"}).build(DATA)
    rows = _rows(6, 0)
    x, t = guide.clean_rows(rows), torch.zeros(6, dtype=torch.int64)
    same = rows["text"][:1].expand(6, -1)
    assert guide.chance(same) == 1.0
    assert guide.score(x, t, same).tolist() == [1.0] * 6
    with torch.no_grad():
        torch.testing.assert_close(guide.losses(x, t, same).mean(), torch.tensor(6.0).log(), rtol=0.2, atol=0.2)
    x.requires_grad_()
    (pull,) = torch.autograd.grad(guide.log_likelihood(x, 5, torch.zeros(6, 5)).sum(), x)
    assert not pull.any()


def test_what_cannot_be_recognized_is_refused() -> None:
    with pytest.raises(ConfigError, match="text"):
        UNetGuideConfig.tiny().model_copy(update={"recognizes": "text"}).build(DATA.model_copy(update={"more": ()}))
    with pytest.raises(ValidationError, match="what the RDM makes"):
        MlpGuideConfig.model_validate(MlpGuideConfig.tiny().model_dump() | {"recognizes": "representation"})
