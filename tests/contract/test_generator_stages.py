"""Every diffusion generator through its stages: `pixels` trains and saves it, `sample` draws with it."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from components.cache.samples import Samples
from components.generators.sampling import DiffusionSampling
from components.pixels import PixelConfig
from components.training.config import EmaConfig, TrainConfig
from flows.stages.pixels.params import PixelsParams, PreviewConfig
from flows.stages.pixels.run import run as train_pixels
from flows.stages.sample.params import SampleParams
from flows.stages.sample.run import run as draw
from tests.support.folders import PX, FolderArtifact, FolderInputs, draw_bars, make_encode, make_generators
from tests.support.toys import worker

SPLITS = ["train"] * 12 + ["val"] * 6 + ["test"] * 2
CONFIGS = [member.tiny() for member in get_args(get_args(PixelConfig)[0]) if member.tiny().kind != "mage"]


SAMPLERS = ("ddim", "ancestral", "dpm_solver_2m")


def _how(sampler: str) -> DiffusionSampling:
    return DiffusionSampling.tiny().model_copy(update={"sampler": sampler, "guidance": 0.5})


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: config.kind)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FolderInputs:
    """What `sample` needs, its `pixels` trained by the stage. Another kind, another sampler of its previews."""
    root, config = tmp_path_factory.mktemp("trained"), request.param
    make_generators(root / "in", "representation")  # rdm and codec; its pixels are replaced
    make_encode(root / "in/encode", draw_bars(len(SPLITS))[0], SPLITS)
    sampler = SAMPLERS[CONFIGS.index(config) % len(SAMPLERS)]
    section = PixelsParams(
        numerics=1,
        model=config,
        seed=0,
        weights=None,
        init=None,
        train=TrainConfig.tiny(),
        ema=EmaConfig.tiny(),
        preview=PreviewConfig(every=3, n=4, sampling=_how(sampler)),
    )
    metrics = train_pixels(section, FolderInputs(root / "in"), FolderArtifact(root / "in/pixels"), worker(root))
    assert metrics["val_loss"] > 0
    return FolderInputs(root / "in")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_train_then_draw(trained: FolderInputs, sampler: str, tmp_path: Path) -> None:
    sampling = SampleParams(
        numerics=1,
        n=5,
        batch_size=3,
        seed=1,
        representations="rdm",
        grid=4,
        rdm=DiffusionSampling.tiny(),
        pixels=_how(sampler),
    )
    out = FolderArtifact(tmp_path / "sample")
    draw(sampling, trained, out, worker(tmp_path))
    images = Samples(out).images(np.arange(5))
    assert images.shape == (5, PX, PX, 3)
    assert len({image.tobytes() for image in images}) == 5
