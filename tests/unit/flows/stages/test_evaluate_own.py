"""Own picture: held-out representations are painted, and each is looked for among all held-out pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.cache.samples import Samples
from components.generators.sampling import DiffusionSampling
from components.metrics.config import FeatureConfig
from components.training.config import TrainConfig
from flows.stages.evaluate.own import own_picture, paint
from flows.stages.evaluate.params import EvaluateParams
from flows.stages.evaluate.run import run as evaluate
from flows.stages.sample.params import SampleParams
from flows.stages.sample.run import run as sample
from tests.support.folders import (
    PX,
    FolderArtifact,
    FolderInputs,
    make_collect,
    make_encode,
    make_encoder,
    make_generators,
)
from tests.support.toys import worker

SPLITS = ["train"] * 30 + ["val"] * 20 + ["test"] * 20
SAMPLE = SampleParams(
    numerics=1,
    n=24,
    batch_size=8,
    seed=7,
    representations="rdm",
    grid=8,
    rdm=DiffusionSampling.tiny(),
    pixels=DiffusionSampling.tiny(),
)
EVALUATE = EvaluateParams(
    numerics=1,
    split="val",
    seed=0,
    features=FeatureConfig(task="auto", px=PX, width=8, dim=2),
    train=TrainConfig.tiny(),
    batch_size=16,
    k_neighbors=3,
    n_bootstrap=2,
    percentile=5.0,
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> FolderInputs:
    root = tmp_path_factory.mktemp("world")
    images = make_collect(root / "collect", root / "source", SPLITS)
    make_encode(root / "encode", images, SPLITS)
    make_encoder(root / "encoder")
    make_generators(root, "representation")
    return FolderInputs(root, str(root / "source"))


def _sampled(inputs: FolderInputs, tmp_path: Path, representations: str) -> Samples:
    params = SAMPLE.model_copy(update={"representations": representations})
    sample(params, inputs, inputs["sample"], worker(tmp_path))
    return Samples(inputs["sample"])


def _keys(split: str) -> list[str]:
    return [f"{i:04d}.png" for i, name in enumerate(SPLITS) if name == split]


def test_recall_is_that_of_the_definition_and_chance_that_of_five_at_random() -> None:
    rng = np.random.default_rng(0)
    held_out = rng.normal(size=(400, 6))
    own = rng.permutation(400)[:300]
    near = own_picture(held_out[own] + 1e-3, held_out, own)
    assert (near["own_picture_r1"], near["own_picture_r5"]) == (1, 1)
    assert (near["own_picture_n"], near["own_picture_chance"]) == (300, 5 / 400)
    nothing = own_picture(rng.normal(size=(300, 6)), held_out, own)
    assert nothing["own_picture_r5"] < 0.05
    noisy = held_out[own] + rng.normal(0, 0.7, (300, 6))
    distance = np.linalg.norm(noisy[:, None] - held_out[None], axis=2)
    rank = (distance < distance[np.arange(300), own][:, None]).sum(1)
    found = own_picture(noisy, held_out, own)
    assert found["own_picture_r5"] == pytest.approx((rank < 5).mean())
    assert found["own_picture_r1"] == pytest.approx((rank < 1).mean())
    assert own_picture(held_out[:2], held_out[:3], np.arange(2))["own_picture_chance"] == 1


def test_every_painting_is_laid_beside_the_picture_that_it_is_of(inputs: FolderInputs, tmp_path: Path) -> None:
    samples = _sampled(inputs, tmp_path, "rdm")
    found = paint(EVALUATE, inputs, samples, _keys("val")[::-1], CPU)
    assert found is not None
    assert found.images.shape == (20, PX, PX, 3)
    assert found.own.tolist() == list(range(20))[::-1]
    again = paint(EVALUATE, inputs, samples, _keys("val"), CPU)
    assert again is not None
    assert (again.images == found.images).all()
    test = paint(EVALUATE.model_copy(update={"split": "test"}), inputs, samples, _keys("test"), CPU)
    assert test is not None
    assert (test.images != found.images).any()


def test_the_oracles_samples_are_paintings_already(inputs: FolderInputs, tmp_path: Path) -> None:
    samples = _sampled(inputs, tmp_path, "oracle")
    found = paint(EVALUATE, inputs, samples, _keys("val"), CPU)
    assert found is not None
    assert sorted(found.own) == list(range(20))
    assert (found.images == samples.images(np.arange(20))).all()


def test_it_stands_in_metrics_and_on_the_page(inputs: FolderInputs, tmp_path: Path) -> None:
    _sampled(inputs, tmp_path, "rdm")
    out = FolderArtifact(tmp_path / "out")
    m = evaluate(EVALUATE, inputs, out, worker(tmp_path))
    assert m["own_picture_chance"] == 0.25
    assert m["own_picture_r1"] <= m["own_picture_r5"] <= 1
    assert {"kid", "kid_floor", "mind", "mind_floor"} <= m.keys()
    assert "pictures/own.png" in out.names()
    assert "painted from their representations alone" in out.read_bytes("report.html").decode()


def test_a_generator_without_representations_has_none(inputs: FolderInputs, tmp_path: Path) -> None:
    samples = _sampled(inputs, tmp_path, "rdm")
    samples.info = samples.info.model_copy(update={"dim": None})
    assert paint(EVALUATE, inputs, samples, _keys("val"), CPU) is None
