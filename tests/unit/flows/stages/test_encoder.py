"""The encoder stage on drawn bars: it learns classes that it never saw, saves what it trained, and refuses nonsense."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from components.encoders.base import load_encoder
from components.encoders.config import ContrastiveConfig, MoCoV3Config, PcaConfig, TimmConfig
from components.errors import ConfigError, DivergedError
from components.images.config import Noise, Warp
from components.images.pictures import to_float
from components.nn.vit import seeded_init
from components.training.config import OptimConfig, TrainConfig
from components.training.report import Report
from components.weights import save_weights
from components.weights_file import WeightsFile
from flows.stages.encoder.params import EncoderParams, ProbeConfig
from flows.stages.encoder.run import run
from tests.support.folders import PX, FolderArtifact, FolderInputs, draw_bars, make_collect
from tests.support.toys import worker

MODEL = MoCoV3Config.tiny().model_copy(
    update={"freeze_patches": False, "width": 32, "projector_hidden": 48, "projector_dim": 16}
)
SPLITS = ["train"] * 90 + ["val"] * 30 + ["test"] * 10


def _params(**changes: Any) -> EncoderParams:
    steps = (Warp.tiny(), Noise.tiny())
    fields = {
        "numerics": 1,
        "model": MODEL,
        "px": PX,
        "seed": 0,
        "train": TrainConfig(
            steps=100,
            batch_size=32,
            seed=0,
            optimizer=OptimConfig(kind="adamw", lr=3e-3, betas=(0.9, 0.95), weight_decay=0.01, decay="matrices"),
            warmup_steps=4,
            schedule="cosine",
            clip_norm=None,
            precision="fp32",
            log_every=25,
        ),
        "contrastive": ContrastiveConfig.tiny().model_copy(update={"views": (steps, steps)}),
        "probe": ProbeConfig.tiny().model_copy(update={"max_images": 200}),
    }
    return EncoderParams(**(fields | changes))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_collect(root / "collect", root / "source", SPLITS)
    return root


Made = tuple[dict[str, float], FolderArtifact]


def _run(
    world: Path,
    tmp_path: Path,
    params: EncoderParams,
    name: str = "out",
    report: Callable[[Report], None] = lambda _report: None,
) -> Made:
    out = FolderArtifact(tmp_path / name)
    return run(params, FolderInputs(world, str(world / "source")), out, worker(tmp_path, report=report)), out


def _briefly(**changes: Any) -> EncoderParams:
    """A tenth of the steps."""
    train = _params().train
    assert train is not None
    return _params(train=train.model_copy(update={"steps": 10, "log_every": 5}), **changes)


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return _run(world, tmp_path_factory.mktemp("trained"), _params())


@pytest.fixture(scope="module")
def brief(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, list[Report]]:
    """Trained briefly, and what it reported."""
    reports: list[Report] = []
    return _run(world, tmp_path_factory.mktemp("brief"), _briefly(), report=reports.append), reports


def test_training_learns_classes_it_never_saw(trained: Made) -> None:
    metrics, out = trained
    assert metrics["knn_accuracy"] > 0.9  # 0.967 and more for five seeds, with one and two threads
    assert metrics["linear_probe_accuracy"] > 0.9
    assert metrics["knn_accuracy_pixels"] > 0.9
    assert (metrics["n_train"], metrics["n_val"], metrics["constant_representations"]) == (90, 30, 0)
    assert 0.5 < metrics["representation_std"] < 1.1
    assert 1.5 < metrics["effective_rank"] <= 16
    curve = out.read_json("plots/loss.json")
    assert [record["step"] for record in curve] == [25, 50, 75, 100]
    assert curve[-1]["loss"] == metrics["loss"] < curve[0]["loss"]
    for name in ("views", "neighbors"):
        with Image.open(out.path(f"pictures/{name}.png")) as picture:
            assert len(np.unique(np.asarray(picture))) > 10


def test_training_again_gives_the_same_bytes(world: Path, tmp_path: Path, brief: tuple[Made, list[Report]]) -> None:
    metrics, out = brief[0]
    again, other = _run(world, tmp_path, _briefly(), "again")
    assert again == metrics
    assert other.names() == out.names()
    for name in out.names():
        assert other.read_bytes(name) == out.read_bytes(name)


def test_neighbors_are_shown_during_training_and_move_no_bit(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brief: tuple[Made, list[Report]]
) -> None:
    (_, out), reports = brief
    shown = {report.step: report.images["neighbors"] for report in reports if report.images}
    assert list(shown) == [2, 4, 6, 8, 10]
    assert all(picture.shape == shown[2].shape for picture in shown.values())
    assert not np.array_equal(shown[2], shown[10])
    monkeypatch.setattr("flows.stages.encoder.run._PREVIEWS", 1)
    _, other = _run(world, tmp_path, _briefly(), "other")
    assert other.read_bytes("weights.safetensors") == out.read_bytes("weights.safetensors")


def test_the_saved_encoder_is_the_examined_one(trained: Made) -> None:
    metrics, out = trained
    images, _ = draw_bars(len(SPLITS))
    z = load_encoder(out)(to_float(images[:90]))
    assert float(z.std(0).mean()) == pytest.approx(metrics["representation_std"], rel=1e-5)
    assert out.read_json("config.json")["kind"] == "mocov3"


def test_imported_weights_are_examined_and_saved(world: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "w.safetensors", MoCoV3Config.tiny()
    with seeded_init(7):
        source = model.build()
        torch.nn.init.normal_(source.network.norm.weight)
    save_weights(path, source.network.state_dict())
    pin = WeightsFile(uri=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    params = _params(model=model.model_copy(update={"weights": pin}), train=None, contrastive=None)
    metrics, out = _run(world, tmp_path, params)
    assert "loss" not in metrics
    assert "plots/loss.json" not in out.names()
    assert out.path("weights.safetensors").read_bytes() == path.read_bytes()
    assert str(path) not in json.dumps(out.read_json("config.json"))


def test_a_collapsed_encoder_is_refused(world: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "w.safetensors", MoCoV3Config.tiny().model_copy(update={"output": "cls"})
    source = model.build()
    with torch.no_grad():
        source.network.norm.weight.mul_(1e-6)
        source.network.norm.bias.copy_(torch.linspace(-1, 1, 16))
    save_weights(path, source.network.state_dict())
    pin = WeightsFile(uri=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    params = _params(model=model.model_copy(update={"weights": pin}), train=None, contrastive=None)
    with pytest.raises(DivergedError, match="nearly the same representation"):
        _run(world, tmp_path, params)


def test_without_labels_there_are_no_accuracies(tmp_path: Path) -> None:
    make_collect(tmp_path / "collect", tmp_path / "source", ["train"] * 40, labeled=False)
    train = _params().train
    assert train is not None
    params = _params(train=train.model_copy(update={"steps": 4, "warmup_steps": 0, "log_every": 2}))
    metrics, out = _run(tmp_path, tmp_path, params)
    assert not any("accuracy" in name for name in metrics)
    assert "pictures/neighbors.png" in out.names()


def test_a_batch_beyond_the_collection_is_refused(world: Path, tmp_path: Path) -> None:
    train = _params().train
    assert train is not None
    with pytest.raises(ConfigError, match="2 to 90"):
        _run(world, tmp_path, _params(train=train.model_copy(update={"batch_size": 91})))


def test_params_either_train_or_import() -> None:
    pin = WeightsFile(uri="w.pt", sha256="0" * 64)
    imported = MoCoV3Config.tiny().model_copy(update={"weights": pin})
    for wrong, message in (
        ({"train": None}, "together"),
        ({"model": TimmConfig.tiny()}, "cannot be trained here"),
        ({"model": imported}, "either trained or imported"),
        ({"train": None, "contrastive": None}, "either trained or imported"),
    ):
        with pytest.raises(ValidationError, match=message):
            _params(**wrong)
    assert _params(model=imported, train=None, contrastive=None).model.dim == 8


def test_a_reduced_encoder_is_saved_whole_and_collapse_still_shows(
    world: Path, tmp_path: Path, brief: tuple[Made, list[Report]]
) -> None:
    reduced = MODEL.model_copy(update={"reduce": PcaConfig(kind="pca", dim=4, whiten=True)})
    metrics, out = _run(world, tmp_path, _briefly(model=reduced))
    plain, whole = brief[0]
    assert out.read_bytes("weights.safetensors") == whole.read_bytes("weights.safetensors")
    assert metrics["representation_std"] == plain["representation_std"]
    assert 0 < metrics["variance_kept"] <= 1
    assert "variance_kept" not in plain
    images, _ = draw_bars(len(SPLITS))
    encoder = load_encoder(out)
    w = encoder(to_float(images[:90]))
    assert w.shape == (90, 4)
    torch.testing.assert_close(w.T.cov(), torch.eye(4), rtol=0, atol=1e-3)
    wide, wider = (MODEL.model_copy(update={"reduce": PcaConfig(kind="pca", dim=n, whiten=True)}) for n in (16, 17))
    with pytest.raises(ConfigError, match=r"encoder\.model\.reduce\.dim: 16"):
        _run(world, tmp_path, _briefly(model=wide), "wide")
    with pytest.raises(ValidationError, match="more than the 16 of the network"):
        _params(model=wider)
