"""The evaluate stage on drawn bars: real images score like real ones, copies are found, everything is written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from components.cache.samples import INDEX, SamplesInfo, save_shard, shard_name
from components.encoders.base import saved_config
from components.encoders.config import MoCoV3Config
from components.encoders.timm import described, imported
from components.errors import ConfigError
from components.files import file_sha256
from components.metrics.config import FeatureConfig, ReadyFeatures
from components.metrics.networks.base import Identity, Seen
from components.metrics.networks.config import TimmNetwork
from components.store.local import LocalStore
from components.training.checkpoint import CheckpointDir
from components.training.config import OptimConfig, TrainConfig
from components.weights import save_weights
from components.weights_file import WeightsFile
from flows.stages.evaluate.params import EvaluateParams
from flows.stages.evaluate.run import run
from tests.support.folders import (
    DIM,
    PX,
    FolderArtifact,
    FolderInputs,
    contents,
    draw_bars,
    make_collect,
    make_encode,
    represent,
)
from tests.support.ranks import run_ranks
from tests.support.toys import worker

SPLITS = ["train"] * 120 + ["val"] * 30 + ["test"] * 40
N = 60


def _params(**changes: object) -> EvaluateParams:
    optimizer = OptimConfig(kind="adamw", lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01, decay="matrices")
    base = EvaluateParams(
        numerics=1,
        split="test",
        seed=0,
        features=FeatureConfig(task="auto", px=PX, width=8, dim=4),
        train=TrainConfig(
            steps=30,
            batch_size=16,
            seed=0,
            optimizer=optimizer,
            warmup_steps=2,
            schedule="cosine",
            clip_norm=None,
            precision="fp32",
            log_every=10,
        ),
        batch_size=32,
        k_neighbors=3,
        n_bootstrap=10,
        percentile=5.0,
    )
    return base.model_copy(update=changes)


def _save_samples(root: Path, images: np.ndarray, *, condition: str, labels: np.ndarray | None = None) -> None:
    out = FolderArtifact(root)
    told = condition == "representation"
    info = SamplesInfo(
        n=len(images),
        batch_size=25,
        px=PX,
        dim=DIM if told else None,
        has_class=labels is not None,
        sampling={"representations": "rdm"},
        pixels={"model": {"kind": "dit", "conditions": [] if condition == "none" else [{"kind": condition}]}},
        rdm=None,
        parents={"pixels": "cd" * 32},
    )
    for shard in range(info.n_shards):
        rows = slice(*info.bounds(shard))
        with out.file(shard_name(shard)) as path:
            save_shard(
                path,
                images[rows],
                representation=torch.from_numpy(represent(images[rows])) if told else None,
                label=torch.from_numpy(labels[rows]) if labels is not None else None,
            )
    out.write_json(INDEX, info.model_dump(mode="json"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labeled collection, its cache and an encoder."""
    root = tmp_path_factory.mktemp("world")
    images = make_collect(root / "collect", root / "source", SPLITS)
    make_encode(root / "encode", images, SPLITS)
    encoder = FolderArtifact(root / "encoder")
    config = MoCoV3Config.tiny()
    encoder.write_json("config.json", saved_config(config))
    save_weights(encoder.path("weights.safetensors"), config.build().network.state_dict())
    return root


def _evaluate(
    world: Path, tmp_path: Path, params: EvaluateParams, name: str = "out"
) -> tuple[dict[str, float], FolderArtifact]:
    out = FolderArtifact(tmp_path / name)
    return run(params, FolderInputs(world, str(world / "source")), out, worker(tmp_path)), out


def test_new_real_images_score_about_as_well_as_training_images(world: Path, tmp_path: Path) -> None:
    images, labels = draw_bars(N, seed=5)
    _save_samples(world / "sample", images, condition="class", labels=labels)
    m, out = _evaluate(world, tmp_path, _params())
    assert m["fd_ratio"] < 4
    assert m["fd_low"] < m["fd"] < m["fd_high"]
    assert m["precision"] > 0.7
    assert m["recall"] > 0.7
    assert m["memorization_share"] < 0.25
    assert m["network_accuracy"] > 0.9
    assert m["class_agreement"] > 0.9
    assert m["class_entropy"] == pytest.approx(np.log(2), abs=0.02)
    assert (m["n_generated"], m["n_held_out"], m["n_train"]) == (N, 40, 120)
    assert "representation_fd" not in m
    assert {
        "report.html",
        "plots/class_histogram.json",
        "plots/nearest_features.json",
        "plots/network_loss.json",
    } <= set(out.names())


def test_copies_of_training_images_are_found(world: Path, tmp_path: Path) -> None:
    train, _ = draw_bars(len(SPLITS))
    _save_samples(world / "sample", train[:N], condition="none")
    m, _ = _evaluate(world, tmp_path, _params())
    assert m["memorization_share"] == m["memorization_share_pixels"] == 1.0
    assert m["memorization_ratio"] < 1e-3


def test_noise_scores_badly_and_one_class_lowers_recall(world: Path, tmp_path: Path) -> None:
    real, _ = draw_bars(2 * N, seed=5)
    rng = np.random.default_rng(0)
    scores = {}
    for name, images in {
        "real": real[:N],
        "noise": rng.integers(0, 256, (N, PX, PX, 3)).astype(np.uint8),
        "rows only": real[::2],
    }.items():
        _save_samples(world / "sample", images, condition="none")
        scores[name], _ = _evaluate(world, tmp_path, _params())
    assert scores["noise"]["fd"] > 5 * scores["real"]["fd"]
    assert scores["noise"]["precision"] < 0.5
    assert [scores[name]["judge_blind"] for name in scores] == [0, 0, 0]
    real_fd, drawn, noise = (scores["noise"][f"control_fd_{name}"] for name in ("real", "generated", "noise"))
    assert real_fd < min(drawn, noise)
    assert scores["real"]["equivalent_px"] > scores["noise"]["equivalent_px"]
    assert scores["real"]["blockiness"] == pytest.approx(scores["real"]["blockiness_real"], rel=0.1)
    assert scores["rows only"]["recall"] < 0.7 * scores["real"]["recall"]
    assert scores["rows only"]["class_entropy"] < 0.3
    assert scores["rows only"]["class_kl"] > 1 > 10 * scores["real"]["class_kl"]


def test_representations_and_report(world: Path, tmp_path: Path) -> None:
    images, _ = draw_bars(N, seed=5)
    _save_samples(world / "sample", images, condition="representation")
    m, out = _evaluate(world, tmp_path, _params())
    assert m["representation_axes"] == DIM
    assert m["representation_fd"] < 4 * m["representation_fd_floor"]
    assert -1 <= m["condition_cosine_shuffled"] <= 1
    html = out.read_bytes("report.html").decode()
    assert f"{N} pictures that do not exist" in html
    for stage in ("sample", "encode", "encoder", "collect"):
        assert FolderInputs(world)[stage].digest in html
    assert "cd" * 32 in html
    points = json.loads(out.read_bytes("plots/representations.json"))
    assert len(points) == N + 40
    assert contents(_evaluate(world, tmp_path, _params(), "again")[1]) == contents(out)


def test_without_labels_it_measures_with_a_self_supervised_network(tmp_path: Path) -> None:
    images = make_collect(tmp_path / "collect", tmp_path / "source", SPLITS, labeled=False)
    make_encode(tmp_path / "encode", images, SPLITS, labeled=False)
    _save_samples(tmp_path / "sample", draw_bars(N, seed=5)[0], condition="none")
    m, out = _evaluate(tmp_path, tmp_path, _params())
    assert m["fd_ratio"] < 4
    assert "class_entropy" not in m
    assert "plots/class_histogram.json" not in out.names()


def test_too_many_features_are_refused_before_anything_is_trained(world: Path, tmp_path: Path) -> None:
    _save_samples(world / "sample", draw_bars(N)[0], condition="none")
    with pytest.raises(ConfigError, match=r"set evaluate\.features\.dim: 6"):
        _evaluate(world, tmp_path, _params(split="val", features=FeatureConfig(task="auto", px=PX, width=8, dim=7)))


def test_more_neighbors_than_pictures_are_refused_before_anything_is_trained(world: Path, tmp_path: Path) -> None:
    _save_samples(world / "sample", draw_bars(N)[0], condition="none")
    with pytest.raises(ConfigError, match=r"40 real and 60 generated images, k = 40") as refused:
        _evaluate(world, tmp_path, _params(k_neighbors=40, train=None))  # nothing to train
    assert "evaluate.k_neighbors" in str(refused.value)


def _ready(folder: Path) -> EvaluateParams:
    import timm

    file = folder / "judge.safetensors"
    torch.manual_seed(0)
    save_weights(file, timm.create_model("test_resnet", num_classes=0).state_dict())
    pin = WeightsFile(uri=str(file), sha256=file_sha256(file))
    network = TimmNetwork(kind="timm", name="test_resnet", input_px=32, weights=pin)
    return _params(features=ReadyFeatures(kind="ready", network=network, dim=4, allow_same=False), train=None)


class _Colors:
    """A network that is quick to have: mean colors of the four quarters. It remembers how much it saw at once."""

    def __init__(self) -> None:
        self.identity, self.seen = Identity("timm", "colors", "0" * 64, "none"), list[int]()

    def to(self, _device: torch.device) -> "_Colors":
        return self

    def __call__(self, images: np.ndarray) -> Seen:
        self.seen.append(len(images))
        quarters = images.reshape(len(images), 2, PX // 2, 2, PX // 2, 3).mean((2, 4))
        return Seen(quarters.reshape(len(images), -1).astype(np.float32))


def _as_rank(rank: int, n: int, world: Path, folder: Path) -> tuple[dict[str, float], list[int]]:
    """The stage's metrics, and the sizes of the batches that this rank's network saw."""
    network = _Colors()
    features = ReadyFeatures(kind="ready", network=TimmNetwork.tiny(), dim=4, allow_same=False)
    (folder / f"{n}-{rank}").mkdir()
    place = worker(folder / f"{n}-{rank}", rank=rank, world_size=n)
    inputs, out = FolderInputs(world, str(world / "source")), FolderArtifact(folder / f"out-{n}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimmNetwork, "load", lambda _: network)
        return run(_params(features=features, train=None), inputs, out, place), network.seen


def _training_rank(rank: int, n: int, world: Path, folder: Path) -> dict[str, float]:
    (folder / f"{n}-{rank}").mkdir()
    store, inputs = LocalStore(folder / "store"), FolderInputs(world, str(world / "source"))
    saved = CheckpointDir(store, "runs/f", 1, 2, folder, rank=rank, world_size=n)
    place = worker(folder / f"{n}-{rank}", rank=rank, world_size=n, checkpoints=saved, checkpoint_every=20)
    return run(_params(), inputs, FolderArtifact(folder / "out"), place)


@pytest.mark.processes
def test_all_ranks_see_a_share_of_the_pictures_and_find_what_one_finds(world: Path, tmp_path: Path) -> None:
    _save_samples(world / "sample", draw_bars(N, seed=5)[0], condition="none")
    (metrics, first), (nothing, second) = run_ranks(2, _as_rank, world, tmp_path, timeout_s=300)
    assert nothing == {}
    assert second == [32, 24, 8, 25]  # of 120 to train on, 40 held out and 60 samples, in whole batches
    assert first[:5] == [32, 32, 32, 25, 10]
    assert metrics == _as_rank(0, 1, world, tmp_path)[0]


@pytest.mark.processes
def test_the_first_rank_trains_the_judge_and_saves_without_the_others(world: Path, tmp_path: Path) -> None:
    _save_samples(world / "sample", draw_bars(N, seed=5)[0], condition="representation")
    metrics, nothing = run_ranks(2, _training_rank, world, tmp_path, timeout_s=300)
    assert nothing == {}
    alone, out = _evaluate(world, tmp_path, _params(), "alone")
    assert metrics == alone
    assert contents(FolderArtifact(tmp_path / "out")) == contents(out)
    assert LocalStore(tmp_path / "store").list("runs/f/checkpoints")


def test_a_network_from_a_file_judges_and_the_encoder_only_where_that_is_meant(world: Path, tmp_path: Path) -> None:
    params = _ready(tmp_path)
    pin = params.features.network.weights  # type: ignore[union-attr]
    _save_samples(world / "sample", draw_bars(N, seed=5)[0], condition="representation")
    m, out = _evaluate(world, tmp_path, params)
    html = " ".join(out.read_bytes("report.html").decode().split())
    assert m["fd"] >= 0
    assert "network_accuracy" not in m
    assert "judge_same" not in m
    assert "test_resnet, a network from a file that has learned nothing here, in the 4 directions" in html
    assert pin.sha256[:12] in html
    assert "plots/network_loss.json" not in out.names()

    root = tmp_path / "same"
    for name in ("collect", "encode", "sample"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(world / name)
    encoder, model = FolderArtifact(root / "encoder"), described("test_resnet", pin)
    encoder.write_json("config.json", saved_config(model))
    save_weights(encoder.path("weights.safetensors"), imported(model).network.state_dict())
    inputs = FolderInputs(root, str(world / "source"))
    with pytest.raises(ConfigError, match=r"allow_same: true"):
        run(params, inputs, FolderArtifact(tmp_path / "refused"), worker(tmp_path))
