"""The presets of GLIDE: current, of the published sizes, with the scales and steps of the released models."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.generators.sampling import DiffusionSampling
from components.generators.upsampling import upsampler_data
from components.target import TargetSpec
from flows.pipeline.params import Params, load_params
from flows.pipeline.table import pipeline
from presets import glide, paper

ROOT = Path(__file__).parents[2]
NAMES = ("glide", "glide-inpaint")
PIXELS = {"glide": 385_030_726, "glide-inpaint": 385_037_638}
UPSAMPLERS = {"glide": 398_361_286, "glide-inpaint": 398_368_198}
LEVEL = 9 * 192
"""Weights of our channel of the noise's level."""
TEXTS: dict[str, Any] = {"ragged": True, "nullable": True, "choices": True, "n_ids": 50257}
IDS = FieldSpec(name="ids", dtype="int32", shape=(128,), **TEXTS)


@cache
def params(name: str) -> Params:
    return load_params(ROOT / f"presets/{name}.yaml")


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_files_are_current() -> None:
    assert paper.written(glide.ROWS, glide.text, ["--check"]) == 0, "run python -m presets.glide"
    assert tuple(row.name for row in glide.ROWS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_the_published_ones(name: str) -> None:
    section = params(name)
    assert section.upsampler is not None
    target = TargetSpec(space="pixels", shape=(3, 64, 64), dtype="uint8", n_codes=None, image_px=64)
    with torch.device("meta"):
        pixels = section.pixels.model.build(GeneratorData(target=target, dim=768, classes=None, more=(IDS,)))
        larger = section.upsampler.model.build(upsampler_data(3, 64, section.upsampler.px, None, (IDS,)))
    assert size(pixels) == PIXELS[name]
    assert size(larger) == UPSAMPLERS[name] + LEVEL


def test_how_they_sample() -> None:
    """100 steps of scale 3, or 5 to inpaint; fast27 without guidance from 64 to 256."""
    for name, guidance, sampler in (("glide", 2.0, "ddim"), ("glide-inpaint", 4.0, "ancestral")):
        small, larger = params(name).sample.pixels, params(name).upsampler
        assert isinstance(small, DiffusionSampling)
        assert (small.sampler, small.steps, small.spacing, small.guidance) == ("ancestral", 100, "linspace", guidance)
        assert larger is not None
        how = larger.sampling
        assert isinstance(how, DiffusionSampling)
        assert (how.sampler, how.steps, how.spacing, how.temperature) == (sampler, 27, "fast27", 0.997)
        assert how.guidance == 0


def test_recipe_and_stages() -> None:
    pixels, larger = params("glide").pixels.train, params("glide").upsampler
    assert pixels is not None
    assert larger is not None
    assert larger.train is not None
    assert (pixels.steps, pixels.batch_size, pixels.optimizer.lr) == (2_500_000, 2048, 1e-4)
    assert (larger.train.steps, larger.train.batch_size) == (1_600_000, 512)
    stages = pipeline(params("glide").model_dump(mode="json"))
    assert "rdm" not in stages
    assert "text" in {need.stage for need in stages["upsampler"].needs}
    assert params("glide-inpaint").pixels.init is not None
