"""The presets of ADM's tables: current, of the published sizes, with the scales and steps of its README."""

from functools import cache
from pathlib import Path

import pytest
import torch

from components.generators.config import GeneratorData
from components.generators.sampling import DiffusionSampling
from components.generators.upsampling import upsampler_data
from components.target import TargetSpec
from flows.pipeline.params import Params, load_params
from presets import adm, paper

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "presets").glob("adm-*.yaml"))
CLASSES = tuple(str(i) for i in range(1000))
PIXELS = {64: 295_904_454, 128: 421_529_606, 256: 553_838_086, 512: 558_997_638}
GUIDES = {64: 65_438_568, 128: 42_568_040, 256: 54_096_360, 512: 54_448_360}
UPSAMPLERS = {256: 311_795_910, 512: 308_835_270}
WIDTHS = {64: 768, 128: 1024, 256: 1024, 512: 1024}
"""Of the time embedding, and so of our null."""


@cache
def params(path: Path) -> Params:
    return load_params(path)


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_files_are_current() -> None:
    assert paper.written(adm.ROWS, adm.text, ["--check"]) == 0, "run python -m presets.adm"
    assert {path.stem for path in PATHS} == {row.name for row in adm.ROWS}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_sizes_are_the_published_ones(path: Path) -> None:
    section, px = params(path), params(path).codec.model.px
    target = TargetSpec(space="pixels", shape=(3, px, px), dtype="uint8", n_codes=None, image_px=px)
    data = GeneratorData(target=target, dim=256, classes=CLASSES)
    with torch.device("meta"):
        pixels = section.pixels.model.build(data)
        guide = section.guide.model.build(data) if section.guide else None
    told = section.pixels.model.condition("class") is not None
    assert size(pixels) == (PIXELS[px] + WIDTHS[px] if told else PIXELS[px] - 1000 * WIDTHS[px])
    assert guide is None or size(guide) == GUIDES[px]
    if section.upsampler is not None:
        with torch.device("meta"):
            up = section.upsampler.model.build(upsampler_data(3, px, section.upsampler.px, CLASSES))
        ours = 768 + 9 * 192  # our null, and the channel of the noise's level
        assert size(up) == UPSAMPLERS[section.upsampler.px] + ours


def test_scales_and_steps() -> None:
    scales = {}
    for path in PATHS:
        how = params(path).sample.pixels
        assert isinstance(how, DiffusionSampling)
        assert (how.sampler, how.steps, how.spacing) == ("ancestral", 250, "linspace")
        if how.guide is not None:
            scales[path.stem] = how.guide.scale
    assert scales == {
        "adm-g-64": 1.0,
        "adm-g-128": 0.5,
        "adm-g-256": 1.0,
        "adm-g-256-none": 10.0,
        "adm-g-512": 4.0,
        "adm-g-u-256": 1.0,
        "adm-g-u-512": 0.5,
    }


def test_recipes() -> None:
    """Of the classifier at 128 pixels, as its README has it, and of the generator at 64."""
    guide, pixels = params(ROOT / "presets/adm-g-128.yaml").guide, params(ROOT / "presets/adm-64.yaml").pixels
    assert guide is not None
    assert guide.train is not None
    run, optimizer = guide.train, guide.train.optimizer
    assert (run.steps, run.batch_size, run.schedule) == (300_000, 256, "linear")
    assert (optimizer.lr, optimizer.weight_decay) == (3e-4, 0.05)
    assert pixels.train is not None
    assert pixels.ema is not None
    assert (pixels.train.steps, pixels.train.batch_size, pixels.ema.decay) == (540_000, 2048, 0.9999)
    assert pixels.model.model_dump()["schedule"]["kind"] == "cosine"
    assert {path.stem for path in PATHS if "drop_prob: 0.1" in path.read_text()} == {
        "adm-64",
        "adm-g-64",
        "adm-u-256",
        "adm-g-u-256",
    }
