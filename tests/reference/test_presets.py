"""The presets of the published table: current, of the published size, and able to take optimizer steps.

Provenance: parameter counts of LTH14/rcg @ 0c4433c, less what no forward pass reads there, plus our null vectors.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from components.generators.base import Generator
from components.generators.config import GeneratorData
from components.target import TargetSpec
from components.training.generator import GeneratorTrainable
from components.training.step import Stepper
from flows.pipeline.params import Params, load_params
from tests.support.generators import build_rdm
from tests.support.toys import worker

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "presets").glob("paper-*.yaml"))
CLASSES = tuple(str(i) for i in range(1000))

RDM, CLASS_RDM = 62_721_280, 72_176_896
LEGACY = 1000
"""Words of MAGE's vocabulary that nothing reads, and as many biases; the mask token has no bias either."""


def _mage(trainable: int, width: int) -> int:
    dead = 2 * width + (768 * width + width) + (768 * width + 768)  # cls and mask token, patch_embed, decoder_pred
    return trainable - dead - LEGACY * width - (LEGACY + 1)


PIXELS = {
    "mage-b": _mage(146_277_097, 768),
    "mage-l": _mage(409_628_649, 1024),
    "dit-xl-2": 674_273_952 - 1152,  # the label table's one unused row
    "adm-256": 553_077_254 + 256,  # our null
}
TOLD = {"mage-b": 768, "mage-l": 1024, "dit-xl-2": 1152, "adm-256": 1024}
"""Width of what the condition is projected to."""
REDUCED: dict[str, dict[str, Any]] = {
    "mage": {"depth": 1, "decoder_depth": 1},
    "dit": {"depth": 1},
    "adm": {"n_blocks": 1, "width": 64},
    "ldm": {"n_blocks": 1, "width": 64},
}


@cache
def params(path: Path) -> Params:
    return load_params(path)


def model_of(path: Path) -> str:
    return next(name for name in (*PIXELS, "ldm-8") if path.stem.startswith(f"paper-{name}"))


def target(path: Path) -> TargetSpec:
    with torch.device("meta"):
        return params(path).codec.model.build().spec


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_files_are_current() -> None:
    spec = importlib.util.spec_from_file_location("paper", ROOT / "presets/paper.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.written(module.ROWS, module.text, ["--check"]) == 0, "run python presets/paper.py"
    assert {path.stem for path in PATHS} == {row.name for row in module.ROWS}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_sizes_are_the_published_ones(path: Path) -> None:
    section, name = params(path), model_of(path)
    with torch.device("meta"):
        rdm = None if section.rdm is None else build_rdm(section.rdm.model, len(CLASSES))
        pixels: Generator = section.pixels.model.build(GeneratorData(target=target(path), dim=256, classes=CLASSES))
    if rdm is None or section.rdm is None:
        assert path.stem.endswith(("-none", "-cluster")), "every other row samples representations"
    else:
        assert size(rdm.net) == (CLASS_RDM if section.rdm.model.conditions else RDM)
    if name not in PIXELS:
        return
    constant = TOLD[name] if name.startswith(("mage", "ldm")) else 0
    told = {"representation": 256 * TOLD[name] + TOLD[name] + 256, "none": constant, "cluster": 1001 * TOLD[name]}
    kind = next((one.kind for one in section.pixels.model.conditions), "none")
    expected = PIXELS[name] - told["representation"] + told[kind]
    assert size(pixels) == expected


def two_steps(generator: Generator, section: Any, batch: dict[str, torch.Tensor], folder: Path) -> list[float]:
    trainable = GeneratorTrainable(generator.train(), section.ema)
    run = section.train.model_copy(update={"batch_size": len(batch["target"])})
    stepper = Stepper(trainable, run, worker(folder))
    return [float(stepper(step, batch)["loss"].detach()) for step in range(2)]


def trained_alike() -> list[Path]:
    """One preset of each group that trains the same pixel generator: the others differ in how they draw."""
    firsts: dict[str, Path] = {}
    for path in PATHS:
        section = params(path).pixels
        firsts.setdefault(f"{section.model!r} {section.train!r} {section.ema!r} {target(path)!r}", path)
    return list(firsts.values())


@pytest.mark.parametrize("path", trained_alike(), ids=lambda p: p.stem)
def test_two_optimizer_steps_at_reduced_depth(path: Path, tmp_path: Path) -> None:
    section = params(path)
    model = section.pixels.model.model_copy(update=REDUCED[section.pixels.model.kind])
    spec = target(path)
    if spec.space == "pixels":
        spec = spec.model_copy(update={"shape": (3, 64, 64), "image_px": 64})
    generator: Generator = model.build(GeneratorData(target=spec, dim=256, classes=CLASSES))
    rng = torch.Generator().manual_seed(0)
    high = {"tokens": spec.n_codes, "pixels": 256, "latents": 2}[spec.space]
    batch = {
        "target": torch.randint(high or 0, (2, *spec.shape), generator=rng).to(getattr(torch, spec.dtype)),
        "representation": torch.randn(2, 256, generator=rng),
        "class": torch.tensor([0, 999]),
    }
    small = [p for p in generator.parameters() if p.requires_grad and p.numel() < 50_000]
    before = [p.detach().clone() for p in small]
    losses = two_steps(generator, section.pixels, batch, tmp_path)
    assert all(loss > 0 for loss in losses)
    assert not all(torch.equal(old, new) for old, new in zip(before, small, strict=True))


@pytest.mark.parametrize(
    "path", [p for p in PATHS if p.stem in ("paper-mage-b", "paper-mage-b-class-rdm")], ids=lambda p: p.stem
)
def test_the_rdm_takes_two_optimizer_steps(path: Path, tmp_path: Path) -> None:
    section = params(path).rdm
    assert section is not None
    rdm = build_rdm(section.model.model_copy(update={"depth": 1}), len(CLASSES))
    rng = torch.Generator().manual_seed(0)
    batch = {
        "target": torch.zeros(2),
        "representation": torch.randn(2, 256, generator=rng),
        "class": torch.tensor([0, 999]),
    }
    losses = two_steps(rdm, section, batch, tmp_path)
    assert losses[0] == pytest.approx(float(batch["representation"].square().mean()), rel=1e-5)


def test_training_recipes() -> None:
    """The sheet's numbers, by name."""
    b, dit, adm, ldm = (
        params(ROOT / f"presets/paper-{name}.yaml").pixels for name in ("mage-b", "dit-xl-2", "adm-256", "ldm-8")
    )
    assert b.train is not None
    assert (b.train.steps, b.train.warmup_steps, b.train.clip_norm, b.ema) == (62556, 3127, 3.0, None)
    assert b.train.optimizer.lr == pytest.approx(1.5e-4 * 4096 / 256)
    assert ldm.train is not None
    assert ldm.train.optimizer.lr == pytest.approx(2.5e-7 * 256)
    assert [p.ema.rule for p in (dit, adm, ldm) if p.ema] == ["constant", "constant", "ramped"]
    rdm = params(ROOT / "presets/paper-mage-b.yaml").rdm
    assert rdm is not None
    assert rdm.train is not None
    assert rdm.train.optimizer.lr == pytest.approx(1e-6 * 512)
