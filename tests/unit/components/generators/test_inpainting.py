"""Inpainters: masks of training, what the network sees, widening, and a trained one against the exact answer."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from components.conditions.config import ClassConfig, MaskedImageConfig
from components.conditions.container import Conditions
from components.conditions.ports import Ports
from components.diffusion.network import Network
from components.errors import ConfigError, ShapeError
from components.fields import mask_name
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.generators.files import load_generator, load_start, save_generator
from components.generators.masks import drawn_masks
from components.generators.sampling import DiffusionSampling
from components.nn.timestep import sinusoids
from components.nn.vit import seeded_init
from components.pixels import PixelConfig
from components.pixels.adm import AdmConfig
from components.pixels.dit import DitConfig
from components.pixels.ldm import LdmConfig
from components.pixels.mage import MageConfig
from components.rng import BatchRng, image_rng
from components.target import KNOWN, TargetSpec
from tests.support.folders import FolderArtifact, randomize

PIXELS = TargetSpec(space="pixels", shape=(3, 8, 8), dtype="uint8", n_codes=None, image_px=8)
DATA = GeneratorData(target=PIXELS, dim=6, classes=("a", "b"))
HOW = DiffusionSampling.tiny()
MASKED = MaskedImageConfig.tiny()


def _built(config: Any, *conditions: Any, data: GeneratorData = DATA) -> Diffusion:
    with seeded_init(0):
        built = config.model_copy(update={"conditions": conditions}).build(data)
    randomize(built)
    return cast(Diffusion, built.eval())


def _known(n: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(256, (n, *PIXELS.shape), generator=generator, dtype=torch.uint8)
    return {KNOWN: target, mask_name(KNOWN): drawn_masks(BatchRng(seed, n), (8, 8))}


def _sample(generator: Diffusion, batch: dict[str, Tensor], how: DiffusionSampling = HOW) -> Tensor:
    return generator.sample(batch, how, image_rng(1, 0, 2, stream="x"))


def test_masks_are_seeded_and_fill_a_part_by_row() -> None:
    masks = drawn_masks(BatchRng(3, 64), (16, 24))
    assert masks.shape == (64, 16, 24)
    assert torch.equal(masks, drawn_masks(BatchRng(3, 64), (16, 24)))
    assert torch.equal(masks[40:50], drawn_masks(BatchRng(3, 64, start=40, stop=50), (16, 24)))
    share = masks.float().mean((1, 2))
    assert len(share.unique()) > 40
    assert 0.55 < float(share.mean()) < 0.85
    assert float(share.min()) < 0.3
    assert not masks.all(2).all(1).any(), "something is always filled in"


@pytest.mark.parametrize("config", [DitConfig.tiny(), AdmConfig.tiny(), LdmConfig.tiny()], ids=lambda c: c.kind)
def test_a_widened_generator_is_the_same_and_then_learns_from_what_is_known(config: Any, tmp_path: Path) -> None:
    plain, inpainter = _built(config), _built(config, MASKED)
    save_generator(plain, FolderArtifact(tmp_path))
    load_start(inpainter, tmp_path / "weights.safetensors")
    steps = plain.process.steps(4, "trailing")
    x_t, batch = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), _known()
    scaled = batch | {KNOWN: batch[KNOWN] / 127.5 - 1}
    ports, _ = inpainter.conditioner.sampling_ports(scaled, image_rng(0, 0, 2, stream="x"))
    none, _ = plain.conditioner.sampling_ports({}, image_rng(0, 0, 2, stream="x"))
    with torch.no_grad():
        torch.testing.assert_close(
            inpainter.denoiser(steps)(x_t, steps[0].t, ports).x0,
            plain.denoiser(steps)(x_t, steps[0].t, none).x0,
            rtol=1e-6,
            atol=1e-6,
        )
    assert torch.equal(_sample(inpainter, batch), _sample(plain, batch))
    inpainter.loss({"target": batch[KNOWN]}, BatchRng(0, 2)).sum().backward()
    gradient = inpainter.net.get_parameter(inpainter.net.input_weight).grad
    assert gradient is not None
    assert bool(gradient[:, 3:].abs().sum((0, 2, 3)).gt(0).all()), "picture and mask, each channel"
    with pytest.raises(ShapeError, match="more channels"):
        load_start(plain, _saved(inpainter, tmp_path / "wide"))


def _saved(generator: Diffusion, folder: Path) -> Path:
    save_generator(generator, FolderArtifact(folder))
    return folder / "weights.safetensors"


def test_only_what_is_known_matters_and_nothing_known_is_generation(tmp_path: Path) -> None:
    inpainter = _built(DitConfig.tiny(), MASKED)
    batch = _known()
    where = batch[mask_name(KNOWN)][:, None]
    hidden = batch | {KNOWN: torch.where(where, batch[KNOWN], 255 - batch[KNOWN])}
    made = _sample(inpainter, batch)
    assert torch.equal(_sample(inpainter, hidden), made), "padding under the mask changes nothing"
    assert torch.equal(made[where.expand_as(made)], batch[KNOWN][where.expand_as(made)])
    other = batch | {KNOWN: torch.where(where, 255 - batch[KNOWN], batch[KNOWN])}
    assert not torch.equal(_sample(inpainter, other)[~where.expand_as(made)], made[~where.expand_as(made)])
    nothing = batch | {mask_name(KNOWN): torch.zeros_like(batch[mask_name(KNOWN)])}
    assert torch.equal(_sample(inpainter, nothing), _sample(inpainter, {}))
    save_generator(inpainter, FolderArtifact(tmp_path))
    assert torch.equal(_sample(cast(Diffusion, load_generator(FolderArtifact(tmp_path), PixelConfig)), batch), made)


def test_guidance_keeps_what_is_known_on_both_sides() -> None:
    inpainter = _built(DitConfig.tiny(), MASKED, ClassConfig.tiny())
    batch = _known() | {"class": torch.tensor([0, 1])}
    scaled = batch | {KNOWN: batch[KNOWN] / 127.5 - 1}
    ports, null = inpainter.conditioner.sampling_ports(scaled, image_rng(0, 0, 2, stream="x"))
    assert ports.spatial is not None
    assert null.spatial is not None
    assert torch.equal(ports.spatial, null.spatial)
    alone = _built(DitConfig.tiny(), MASKED)
    with pytest.raises(ConfigError, match="dropout"):
        _sample(alone, batch, HOW.model_copy(update={"guidance": 1.0}))


def test_a_transformer_of_tokens_needs_no_such_condition() -> None:
    with pytest.raises(ValidationError, match="no spatial port"):
        MageConfig.model_validate(MageConfig.tiny().model_dump() | {"conditions": [MASKED.model_dump()]})


class _Linear(Network):
    """Linear in the noisy numbers and the known ones, by a matrix that depends on time and mask, as the answer is."""

    input_weight = "layers.0.weight"

    def __init__(self) -> None:
        super().__init__(vector_width=None, c_extra=2)
        self.layers = nn.Sequential(nn.Linear(4 + 16, 64), nn.SiLU(), nn.Linear(64, 32))

    def time_vectors(self, t: Tensor) -> Tensor:
        return sinusoids(t, 16)

    def forward(self, x_t: Tensor, time: Tensor, ports: Ports) -> Tensor:
        assert ports.spatial is not None
        x_known, mask = ports.spatial.chunk(2, 1)
        matrix = self.layers(torch.cat([mask.flatten(1), time.expand(len(x_t), -1)], 1)).view(-1, 4, 8)
        out: Tensor = (matrix @ torch.cat([x_t, x_known], 1).flatten(1)[:, :, None]).view_as(x_t)
        return out


def _posterior_mean(cov: Tensor, x_t: Tensor, ab: float, x_known: Tensor, where: Tensor) -> Tensor:
    """E[x0 | x_t, what is known] of N(0, cov), what is known being as good as exact. Shapes: (b, 4)."""
    certain = 1e6 * where.double()
    seen = ab / (1 - ab)
    precision = torch.linalg.inv(cov.double()) + torch.diag_embed(certain + seen)
    evidence = certain * x_known + seen / ab**0.5 * x_t
    return torch.linalg.solve(precision, evidence[:, :, None])[:, :, 0]


def test_a_trained_inpainter_is_the_conditional_denoiser() -> None:
    """Four correlated numbers as an image of 2 x 2, under masks as training draws them."""
    spec = TargetSpec(space="latents", shape=(1, 2, 2), dtype="float32", n_codes=None, image_px=2)
    cov = torch.tensor([[0.8 ** abs(i - j) for j in range(4)] for i in range(4)])
    data = GeneratorData(target=spec, dim=4, classes=None)
    config = DitConfig.tiny().model_copy(update={"conditions": (MASKED,), "prediction": "x0"})
    with seeded_init(0):
        network = _Linear()
        conditions = Conditions(config.conditions, network, data.fields)
        inpainter = Diffusion(config, data, spec=spec, network=network, conditions=conditions)
    root, n_steps = torch.linalg.cholesky(cov), 400
    optimizer = torch.optim.Adam(inpainter.parameters(), lr=2e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for i in range(n_steps):
        rng = BatchRng(i, 256)
        x0 = (rng.normal(4) @ root.T).view(-1, 1, 2, 2)
        optimizer.zero_grad()
        inpainter.loss({"target": x0}, rng).mean().backward()
        optimizer.step()
        decay.step()
    rng = BatchRng(10**6, 1000)
    x0, where = (rng.normal(4) @ root.T).view(-1, 1, 2, 2), drawn_masks(rng, (2, 2))
    ports, _ = inpainter.conditioner.sampling_ports({KNOWN: x0, mask_name(KNOWN): where}, rng)
    steps = inpainter.process.steps(10, "trailing")
    denoise, unknown = inpainter.eval().denoiser(steps), ~where.flatten(1)
    for step in steps[:-1]:
        x_t = step.ab**0.5 * x0 + (1 - step.ab) ** 0.5 * rng.normal(1, 2, 2)
        with torch.no_grad():
            learned = denoise(x_t, step.t, ports).x0.flatten(1)
        exact, unaware = (
            _posterior_mean(cov, x_t.flatten(1), step.ab, x0.flatten(1), told)
            for told in (~unknown, torch.zeros_like(unknown))
        )
        off, blind = ((guess - exact)[unknown].square().mean() for guess in (learned, unaware))
        assert float(off) < 0.05 * float(blind) + 0.01, step.t
