"""Hybrid: it starts at zero, convolutions cross the borders of patches, the loss weighs as v, and it learns."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from components.conditions.ports import Ports
from components.diffusion.predict import MOST_V_WEIGHT, Prediction
from components.diffusion.process import alpha_bars
from components.errors import ConfigError
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.generators.sampling import DiffusionSampling
from components.pixels.dit import DitConfig
from components.pixels.hybrid import HybridConfig
from components.pixels.hybrid_network import HybridNetwork
from components.rng import BatchRng, RowRng
from components.target import TargetSpec
from tests.support.folders import randomize
from tests.support.generators import conditions

PIXELS = TargetSpec(space="pixels", shape=(3, 8, 8), dtype="uint8", n_codes=None, image_px=8)
LATENTS = TargetSpec(space="latents", shape=(2, 4, 4), dtype="float16", n_codes=None, image_px=16)
TINY, DIM = HybridConfig.tiny(), 5


def _config(kind: str = "representation", **changes: object) -> HybridConfig:
    return TINY.model_copy(update={"conditions": conditions(kind)} | changes)


def _built(config: HybridConfig | DitConfig = TINY, spec: TargetSpec = PIXELS, *, fresh: bool = False) -> Diffusion:
    generator = config.build(GeneratorData(target=spec, dim=DIM, classes=None))
    if not fresh:
        randomize(generator)
    return generator


def _reached(generator: Diffusion, row: int, column: int) -> Tensor:
    """Which pixels of x_t an output pixel depends on. Shapes: -> (h, w)."""
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = generator.net(x, generator.net.time_vectors(torch.tensor([500])), Ports(vector=torch.randn(1, 16)))
    (grad,) = torch.autograd.grad(out[0, :, row, column].sum(), x)
    return grad[0].abs().sum(0) > 0


def test_it_starts_by_predicting_zero_in_identical_blocks() -> None:
    generator = _built(fresh=True)
    out = generator.net(torch.randn(4, 3, 8, 8), torch.randn(4, 16), Ports(vector=torch.randn(4, 16)))
    assert out.shape == (4, 3, 8, 8)
    assert not out.any()
    (block,) = generator.net.blocks
    tokens = torch.randn(4, 4, 16)
    assert torch.equal(block(tokens, torch.randn(4, 16), Ports()), tokens)
    drawn = _built(_config("none", prediction="x0"), fresh=True).sample({}, DiffusionSampling.tiny(), RowRng([0]))
    assert set(drawn.flatten().tolist()) == {128}  # no grain of the noise that it started from


def test_convolutions_reach_across_the_borders_of_patches() -> None:
    """Without attention a DiT sees its own patch alone; here pixels on both sides of a border are painted together."""
    hybrid, dit = _built(), _built(DitConfig.tiny().model_copy(update={"patch": 4}))
    for generator in (hybrid, dit):
        for block in generator.net.blocks:
            torch.nn.init.zeros_(block.adaLN_modulation[1].weight)
            torch.nn.init.zeros_(block.adaLN_modulation[1].bias)
    assert not _reached(dit, 2, 3)[2, 4]
    reached = _reached(hybrid, 2, 3)
    assert reached[2, 3]
    assert reached[2, 4]


def test_fresh_tokens_are_as_large_as_their_positions() -> None:
    """Tokens that drown in their positions learn nothing of the picture for hundreds of steps."""
    wide = _config(width=64, channels=16, stride=8)
    net = _built(wide, PIXELS.model_copy(update={"shape": (3, 32, 32)}), fresh=True).net
    assert isinstance(net, HybridNetwork)
    x: Tensor = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for part in net.stem:
        x = part(x)
    assert 0.5 < float((x.std() / net.pos_embed.std()).detach()) < 2


def test_the_stem_gives_the_head_what_tokens_cannot_hold() -> None:
    generator = _built()
    net = generator.net
    assert isinstance(net, HybridNetwork)
    convs = [net.stem[0], *(halved[2] for halved in net.stem[1:])]
    assert [tuple(conv.weight.shape[:2]) for conv in convs] == [(8, 3), (16, 8), (16, 16)]
    torch.nn.init.zeros_(net.head[0].narrow.weight)  # nothing of the tokens gets through
    assert _reached(generator, 4, 4)[4, 4]


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_weighting_v_is_the_squared_error_of_v(kind: Prediction) -> None:
    generator = _built(_config("none", prediction=kind, weighting="v"))
    n = 64
    target = torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    rng = BatchRng(4, n)
    t = rng.integers(1000)
    eps = rng.normal(3, 8, 8)
    ab = alpha_bars(TINY.schedule)[t].view(-1, 1, 1, 1)
    a, s, x0 = ab.sqrt(), (1 - ab).sqrt(), target.double() / 127.5 - 1
    x_t = a * x0 + s * eps
    out = generator.net(x_t.float(), generator.net.time_vectors(t), Ports()).double()
    guess = {"eps": (x_t - s * out) / a, "v": a * x_t - s * out, "x0": out}[kind]
    errors = ((a * x_t - guess) / s - (a * eps - s * x0)).square().mean((1, 2, 3))  # v = (a x_t - x0) / s
    loss = generator.loss({"target": target}, BatchRng(4, n)).double()
    weight = 1 / {"eps": ab, "v": torch.ones_like(ab), "x0": 1 - ab}[kind].flatten()
    below = weight < MOST_V_WEIGHT
    assert bool(below.any())
    torch.testing.assert_close(loss[below], errors[below], rtol=1e-3, atol=1e-3)
    assert bool((loss[~below] < errors[~below]).all())


def test_weighting_is_said_once_and_older_params_keep_their_fingerprints() -> None:
    with pytest.raises(ValidationError, match="two weights; set min_snr: null"):
        HybridConfig.model_validate(TINY.model_dump() | {"weighting": "v", "min_snr": 5.0})
    assert "weighting" not in DitConfig.tiny().model_dump(mode="json")
    assert _config(weighting="v").model_dump(mode="json")["weighting"] == "v"


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="does not halve evenly") as caught:
        _built(_config(stride=8), LATENTS)
    assert "among 2, 4" in str(caught.value.fix)
    with pytest.raises(ConfigError, match="choose an even side"):
        TINY.check_side(7)
    with pytest.raises(ValidationError, match="heads is 3, which does not divide width 16"):
        HybridConfig.model_validate(TINY.model_dump() | {"heads": 3})


def test_it_learns_to_paint_what_the_condition_says() -> None:
    """A bright bar across the border of two patches, or a dark one; the representation's sign says which."""
    torch.manual_seed(0)
    generator = _built(_config(prediction="x0", weighting="v"), fresh=True)
    optimizer = torch.optim.Adam(generator.parameters(), lr=5e-3)
    rng = BatchRng(0, 32)
    bar = torch.zeros(8, 8)
    bar[3:5] = 1
    for _ in range(80):
        sign = torch.where(rng.uniform(1) < 0.5, -1.0, 1.0)
        target = (127.5 + 100 * sign[:, :, None, None] * bar).round().to(torch.uint8).expand(-1, 3, -1, -1)
        loss = generator({"target": target, "representation": sign.expand(-1, DIM)}, rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sign = torch.tensor([-1.0, 1.0, 1.0, -1.0])
    how = DiffusionSampling.tiny().model_copy(update={"steps": 10})
    drawn = generator.sample({"representation": sign[:, None].expand(-1, DIM)}, how, RowRng(range(4))).float()
    assert drawn[:, :, 3:5].mean((1, 2, 3)).tolist() == pytest.approx((127.5 + 100 * sign).tolist(), abs=30)
    assert drawn[:, :, [0, 1, 6, 7]].mean((1, 2, 3)).tolist() == pytest.approx([127.5] * 4, abs=20)
