"""Stage pixels: what it writes, its previews, what conditions it fits, and which mistakes it names."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.codecs.config import NoneConfig
from components.conditions.config import MaskedImageConfig
from components.errors import ConfigError
from components.generators.sampling import DiffusionSampling, MaskedSampling
from components.images.pictures import SHOWN_PX
from components.pixels import load_pixels
from components.pixels.dit import DitConfig
from components.pixels.mage import MageConfig
from components.rng import RowRng
from components.target import TargetSpec
from components.training.config import EmaConfig, TrainConfig
from components.training.report import Report
from flows.stages.pixels.params import PixelsParams, PreviewConfig
from flows.stages.pixels.run import run
from tests.support.folders import DIM, PX, FolderArtifact, FolderInputs, contents, draw_bars, make_encode
from tests.support.generators import conditions
from tests.support.starts import REFUSED, check_start
from tests.support.toys import worker

SPLITS = ["train"] * 12 + ["val"] * 6 + ["test"] * 2
FILES = ["config.json", "pictures/samples.png", "plots/loss.json", "weights.safetensors"]


def _params(kind: str = "representation", **changes: object) -> PixelsParams:
    tiny = DitConfig.tiny()
    base = PixelsParams(
        numerics=1,
        model=tiny.model_copy(update={"conditions": conditions(kind)}),
        seed=0,
        weights=None,
        init=None,
        train=TrainConfig.tiny(),
        ema=EmaConfig.tiny(),
        preview=PreviewConfig(every=3, n=4, sampling=DiffusionSampling.tiny()),
    )
    return base.model_copy(update=changes)


def _inputs(root: Path, splits: list[str] = SPLITS, *, labeled: bool = True) -> FolderInputs:
    make_encode(root / "encode", draw_bars(len(splits))[0], splits, labeled=labeled)
    codec = NoneConfig(kind="none", channels=1, px=PX)
    FolderArtifact(root / "codec").write_json("config.json", codec.model_dump(mode="json"))
    return FolderInputs(root)


@pytest.mark.parametrize("kind", ["representation", "none", "class", "cluster"])
def test_it_writes_a_generator_its_curve_and_samples(tmp_path: Path, kind: str) -> None:
    inputs, out = _inputs(tmp_path / "in"), FolderArtifact(tmp_path / "out")
    metrics = run(_params(kind), inputs, out, worker(tmp_path))
    assert out.names() == FILES
    assert metrics.keys() == {"loss", "val_loss", "n_train", "n_val"}
    assert (metrics["n_train"], metrics["n_val"]) == (12, 6)
    assert [record["step"] for record in out.read_json("plots/loss.json")] == [2, 4]
    generator = load_pixels(out)
    assert (generator.data.dim, generator.data.classes) == (DIM, ("bar", "post"))
    given = {"representation": torch.randn(2, DIM)} if kind == "representation" else {}
    assert generator.sample(given, DiffusionSampling.tiny(), RowRng([0, 1])).shape == (2, 1, PX, PX)
    if kind == "class":
        assert cast(Any, generator.conditioner[kind]).frequencies.tolist() == [0.5, 0.5]
    if kind == "cluster":
        assert cast(Any, generator.conditioner[kind]).centroids.norm(dim=1).tolist() == pytest.approx([1.0] * 4)
        assert float(cast(Any, generator.conditioner[kind]).frequencies.sum()) == pytest.approx(1.0)


def test_a_finished_generator_is_tuned_to_an_inpainter(tmp_path: Path) -> None:
    inputs, first, tuned = (
        _inputs(tmp_path / "in"),
        FolderArtifact(tmp_path / "in/init"),
        FolderArtifact(tmp_path / "out"),
    )
    run(_params(), inputs, first, worker(tmp_path))
    told = {"conditions": (*conditions("representation"), MaskedImageConfig.tiny())}
    section = _params(model=DitConfig.tiny().model_copy(update=told), init=f"sha256:{first.digest}")
    metrics = run(section, inputs, tuned, worker(tmp_path))
    assert metrics["val_loss"] > 0
    before, after = (load_pixels(one).state_dict() for one in (first, tuned))
    wider = {name for name in before if after[name].shape != before[name].shape}
    assert len(wider) == 1
    name = wider.pop()
    assert after[name].shape[1] == before[name].shape[1] + 2, "one channel of the picture, one of the mask"
    assert bool(after[name][:, -2:].any()), "they were trained"


def test_the_same_params_give_the_same_bytes(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path / "in")
    results = []
    for name in ("a", "b"):
        out = FolderArtifact(tmp_path / name)
        results.append((run(_params(), inputs, out, worker(tmp_path)), contents(out)))
    assert results[0] == results[1]


def test_previews_come_on_the_way_and_change_no_weights(tmp_path: Path) -> None:
    inputs, seen = _inputs(tmp_path / "in"), list[Report]()
    often, never = FolderArtifact(tmp_path / "often"), FolderArtifact(tmp_path / "never")
    preview = _params().preview
    run(_params(preview=preview.model_copy(update={"every": 1})), inputs, often, worker(tmp_path, report=seen.append))
    run(_params(preview=preview.model_copy(update={"every": 99})), inputs, never, worker(tmp_path))
    assert often.read_bytes("weights.safetensors") == never.read_bytes("weights.safetensors")
    drawn = [report.images["samples"] for report in seen if report.images]
    assert [report.step for report in seen if report.images] == [1, 2, 3, 4]
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in drawn)
    assert drawn[0].shape[0] >= 2 * SHOWN_PX  # real images above drawn ones
    assert (drawn[0] != drawn[-1]).any()


@pytest.mark.parametrize("kind", ["representation", "class", "cluster"])
def test_it_trains_on_train_rows_alone(tmp_path: Path, kind: str) -> None:
    """Other held-out images, same weights."""
    images = draw_bars(len(SPLITS))[0]
    weights = []
    for name in ("a", "b"):
        inputs = _inputs(tmp_path / name)
        make_encode(tmp_path / name / "encode", images, SPLITS)
        out = FolderArtifact(tmp_path / f"out-{name}")
        run(_params(kind), inputs, out, worker(tmp_path))
        weights.append(out.read_bytes("weights.safetensors"))
        images = np.concatenate([images[:12], 255 - images[12:]])
    assert weights[0] == weights[1]


def test_without_held_out_or_labeled_images(tmp_path: Path) -> None:
    inputs, out = _inputs(tmp_path / "in", ["train"] * 5, labeled=False), FolderArtifact(tmp_path / "out")
    metrics = run(_params(), inputs, out, worker(tmp_path))
    assert metrics.keys() == {"loss", "n_train"}
    assert out.names() == FILES


def test_mistakes_are_named(tmp_path: Path) -> None:
    unlabeled, out = _inputs(tmp_path / "in", labeled=False), FolderArtifact(tmp_path / "out")
    with pytest.raises(ConfigError, match="no labels"):
        run(_params("class"), unlabeled, out, worker(tmp_path))
    few = _inputs(tmp_path / "few", ["train", "train", "val"])
    with pytest.raises(ConfigError, match="more clusters than training images"):
        run(_params("cluster"), few, out, worker(tmp_path))
    mage = _params(model=MageConfig.tiny(), preview=PreviewConfig(every=1, n=1, sampling=MaskedSampling.tiny()))
    with pytest.raises(ConfigError, match="mage generates tokens"):
        run(mage, unlabeled, out, worker(tmp_path))
    with pytest.raises(ValidationError, match=r"pixels\.preview\.sampling: .*set kind: masked"):
        PixelsParams.model_validate({**_params().model_dump(), "model": MageConfig.tiny().model_dump()})
    sampling = DiffusionSampling.tiny().model_copy(update={"steps": 30, "spacing": "reference"})
    uneven = _params().preview.model_copy(update={"sampling": sampling})
    with pytest.raises(ValidationError, match=r"pixels\.preview\.sampling: 30 sampling steps"):
        PixelsParams.model_validate(_params().model_dump() | {"preview": uneven})


def test_mage_trains_on_tokens_through_the_same_stage(tmp_path: Path) -> None:
    from components.cache.reader import CacheInfo, cache_fields
    from components.cache.shards import ShardWriter, shard_name
    from components.codecs.config import VqganConfig
    from components.weights import save_weights

    config = VqganConfig.tiny()
    codec = config.build()
    spec: TargetSpec = codec.spec
    if spec.space != "tokens":
        pytest.skip("the tiny codec makes latents")
    root = tmp_path / "in"
    cache = FolderArtifact(root / "encode")
    rows = [
        {"key": str(i), "sha256": "0", "split": s, "caption": None, "view": 0, "class": None}
        for i, s in enumerate(SPLITS)
    ]
    fields = cache_fields(DIM, spec, None)
    tokens = np.random.default_rng(0).integers(0, spec.n_codes or 1, (len(rows), *spec.shape)).astype(np.int32)
    z = np.random.default_rng(1).normal(size=(len(rows), DIM)).astype(np.float32)
    with cache.file(shard_name("c00000")) as path, ShardWriter(path, fields) as shard:
        shard.add(rows, {"representation": z, "target": tokens})
    info = CacheInfo(fields=fields, target=spec, n_views=1, counts={}, chunks=["c00000"])
    cache.write_json("cache.json", info.model_dump(mode="json"))
    artifact = FolderArtifact(root / "codec")
    artifact.write_json("config.json", config.model_dump(mode="json"))
    with artifact.file("weights.safetensors") as path:
        save_weights(path, codec.state_dict())
    params = _params(model=MageConfig.tiny(), preview=PreviewConfig(every=2, n=3, sampling=MaskedSampling.tiny()))
    out = FolderArtifact(tmp_path / "out")
    metrics = run(params, FolderInputs(root), out, worker(tmp_path))
    assert out.names() == FILES
    assert metrics["val_loss"] > 0


def test_it_starts_from_a_finished_run_named_by_its_digest(tmp_path: Path) -> None:
    check_start(run, _params(), _inputs(tmp_path / "in"), tmp_path)


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_a_start_that_may_move_or_is_ambiguous_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PixelsParams.model_validate(_params().model_dump() | changes)
