"""The sample stage: bits do not depend on workers, conditions come from where they should, mistakes are named."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from components.cache.samples import Samples, oracle_rows
from components.errors import ConfigError, RetryableError
from components.generators.sampling import DiffusionSampling
from components.training.report import Report
from flows.stages.sample.params import SampleParams
from flows.stages.sample.run import run
from tests.support.folders import (
    FolderArtifact,
    FolderInputs,
    contents,
    draw_bars,
    make_encode,
    make_generators,
    represent,
)
from tests.support.toys import worker

SPLITS = ["train"] * 6 + ["val"] * 4 + ["test"] * 2


def _params(**changes: object) -> SampleParams:
    base = SampleParams(
        numerics=1,
        n=10,
        batch_size=3,
        seed=7,
        representations="rdm",
        grid=8,
        rdm=DiffusionSampling.tiny(),
        pixels=DiffusionSampling.tiny(),
    )
    return base.model_copy(update=changes)


def _inputs(root: Path, condition: str = "representation", *, class_rdm: bool = False) -> FolderInputs:
    make_generators(root, condition, class_rdm=class_rdm)
    make_encode(root / "encode", draw_bars(len(SPLITS))[0], SPLITS)
    return FolderInputs(root)


def _draw(inputs: FolderInputs, out: Path, params: SampleParams, world_size: int = 1) -> FolderArtifact:
    artifact = FolderArtifact(out)
    for rank in range(world_size):
        metrics = run(params, inputs, artifact, worker(out, rank=rank, world_size=world_size))
        assert metrics == {"n": 10.0}
    return artifact


@pytest.mark.parametrize("condition", ["representation", "none", "class", "cluster"])
def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, condition: str) -> None:
    inputs = _inputs(tmp_path / "in", condition)
    params = _params() if condition == "representation" else _params(representations=None, rdm=None)
    alone = contents(_draw(inputs, tmp_path / "1", params))
    assert contents(_draw(inputs, tmp_path / "3", params, world_size=3)) == alone
    assert contents(_draw(inputs, tmp_path / "9", params, world_size=9)) == alone
    assert sorted(alone) == [*(f"images/{i:06d}.safetensors" for i in range(4)), "pictures/grid.png", "samples.json"]


def test_told_to_stop_it_ends_after_the_images_at_hand(tmp_path: Path) -> None:
    inputs, out = _inputs(tmp_path / "in"), FolderArtifact(tmp_path / "out")
    with pytest.raises(RetryableError, match="told to stop"):
        run(_params(), inputs, out, worker(tmp_path, stopping=lambda: True))
    assert sorted(contents(out)) == ["images/000000.safetensors"]


def test_more_images_begin_with_the_same_ones_and_another_seed_changes_all(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path / "in")
    first = Samples(_draw(inputs, tmp_path / "a", _params()))
    other = Samples(_draw(inputs, tmp_path / "b", _params(seed=8)))
    longer = FolderArtifact(tmp_path / "c")
    run(_params(n=12), inputs, longer, worker(tmp_path))
    images = first.images(np.arange(10))
    assert (Samples(longer).images(np.arange(9)) == images[:9]).all()
    assert (other.images(np.arange(10)) != images).any(axis=(1, 2, 3)).all()
    assert len(np.unique(images.reshape(10, -1), axis=0)) == 10


def test_oracle_representations_are_those_of_val_images(tmp_path: Path) -> None:
    samples = Samples(_draw(_inputs(tmp_path / "in"), tmp_path / "out", _params(representations="oracle")))
    drawn = samples.representations()
    assert drawn is not None
    real = represent(draw_bars(len(SPLITS))[0])[6:10]
    matches = [int(np.flatnonzero((real == z).all(axis=1))[0]) for z in drawn]
    assert sorted(matches[:4]) == sorted(matches[4:8]) == [0, 1, 2, 3]
    assert set(samples.info.parents) == {"pixels", "codec", "encode"}


def test_oracle_rows_use_every_image_once_per_lap() -> None:
    rows = oracle_rows(5, 0, 17, seed=3)
    assert all(sorted(rows[i : i + 5]) == list(range(5)) for i in (0, 5, 10))
    assert (np.concatenate([oracle_rows(5, a, b, seed=3) for a, b in ((0, 4), (4, 11), (11, 17))]) == rows).all()
    assert rows[:5].tolist() != rows[5:10].tolist()


def test_classes_are_drawn_as_often_as_in_training_and_recorded(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path / "in", "class")
    weights = inputs["pixels"].path("weights.safetensors")
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    name = "conditioner.class.frequencies"
    tensors[name][:] = tensors[name].new_tensor([0.2, 0.8])
    save_file(tensors, weights)
    out = FolderArtifact(tmp_path / "out")
    run(_params(n=400, batch_size=200), inputs, out, worker(tmp_path))
    labels = Samples(out).labels()
    assert labels is not None
    assert Counter(labels.tolist())[1] / 400 == pytest.approx(0.8, abs=0.05)
    assert Samples(out).representations() is None


def test_a_class_conditional_rdm_is_told_the_class(tmp_path: Path) -> None:
    samples = Samples(_draw(_inputs(tmp_path / "in", class_rdm=True), tmp_path / "out", _params()))
    assert samples.labels() is not None
    assert samples.representations() is not None


def test_the_unconditional_generator_reads_neither_rdm_nor_cache(tmp_path: Path) -> None:
    make_generators(tmp_path / "in", "none")
    params = _params(representations=None, rdm=None)
    samples = Samples(_draw(FolderInputs(tmp_path / "in"), tmp_path / "out", params))
    assert not (tmp_path / "in/rdm").exists()
    assert samples.info.rdm is None
    assert set(samples.info.parents) == {"pixels", "codec"}


def test_every_rank_reports_equally_often(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path / "in")
    counts = []
    for rank in range(3):
        heard: list[Report] = []
        run(
            _params(),
            inputs,
            FolderArtifact(tmp_path / "out"),
            worker(tmp_path, rank=rank, world_size=3, report=heard.append),
        )
        counts.append(len(heard))
        assert ("grid" in heard[-1].images) == (rank == 0)
    assert len(set(counts)) == 1


def test_guidance_without_a_trained_null_is_a_config_error(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path / "in")
    config = inputs["pixels"].read_json("config.json")
    config["model"]["conditions"][0]["drop_prob"] = 0.0
    inputs["pixels"].write_json("config.json", config)
    guided = DiffusionSampling.tiny().model_copy(update={"guidance": 1.0})
    with pytest.raises(ConfigError, match="drop_prob above 0"):
        run(_params(pixels=guided), inputs, FolderArtifact(tmp_path / "out"), worker(tmp_path))
