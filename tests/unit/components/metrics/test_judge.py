"""Who judges: a network from a file is read in the training pictures' principal axes, and learns nothing here."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from components.errors import ConfigError, DataError
from components.files import file_sha256
from components.metrics.config import FeatureConfig, ReadyFeatures
from components.metrics.fitting import RealImages
from components.metrics.judge import find_judge
from components.metrics.networks.base import extract, is_same
from components.metrics.networks.config import TimmNetwork
from components.weights_file import WeightsFile
from tests.support.toys import worker

N, PX, DIM = 60, 16, 4


class Pictures:
    """Colors and stripes."""

    labels = None

    def __init__(self, n: int = N) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (n, 1, PX, 3), np.uint8).repeat(PX, axis=1)

    def __len__(self) -> int:
        return len(self.images)

    def load(self, indices: np.ndarray, px: int) -> np.ndarray:
        assert px == PX
        chosen: np.ndarray = self.images[indices]
        return chosen


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> TimmNetwork:
    file = tmp_path_factory.mktemp("weights") / "judge.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), file)
    pin = WeightsFile(uri=str(file), sha256=file_sha256(file))
    return TimmNetwork(kind="timm", name="test_resnet", input_px=32, weights=pin)


def _ready(network: TimmNetwork, dim: int | None = DIM) -> ReadyFeatures:
    return ReadyFeatures(kind="ready", network=network, dim=dim, allow_same=False)


def test_features_are_those_of_the_file_in_the_training_pictures_axes(network: TimmNetwork, tmp_path: Path) -> None:
    images = RealImages(Pictures(), PX)
    judge, train = find_judge(
        _ready(network), images, ["a", "b"], None, worker(tmp_path), batch_size=16, n_held_out=5 * DIM, seed=0
    )
    raw = extract(network.load(), images.batches(16))[0].astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(raw.T))
    expected = (raw - raw.mean(0)) @ vectors[:, ::-1][:, :DIM]
    assert np.abs(train) == pytest.approx(np.abs(expected), abs=1e-8 * np.sqrt(values[-1]))
    assert judge.task is None
    assert judge.see(images.batches(7))[1] is None
    assert judge.features(images.load(np.arange(5)), 2) == pytest.approx(train[:5], abs=1e-5)
    assert judge.network.identity.resize.startswith("bicubic with antialias to 32")


def test_all_features_where_no_axes_are_asked_for(network: TimmNetwork, tmp_path: Path) -> None:
    images, width = RealImages(Pictures(), PX), extract(network.load(), [Pictures().images[:2]])[0].shape[1]
    found = [
        find_judge(_ready(network, None), images, None, None, worker(tmp_path), batch_size=16, n_held_out=n, seed=0)
        for n in (5 * width,)
    ]
    assert found[0][1].shape == (N, width)
    with pytest.raises(ConfigError, match=r"set evaluate\.features\.dim: 3"):
        find_judge(_ready(network, None), images, None, None, worker(tmp_path), batch_size=16, n_held_out=19, seed=0)


def test_more_axes_than_pictures_or_than_held_out_ones_bear(network: TimmNetwork, tmp_path: Path) -> None:
    few = RealImages(Pictures(4), PX)
    with pytest.raises(ConfigError, match=r"set evaluate\.features\.dim: 3"):
        find_judge(_ready(network), few, None, None, worker(tmp_path), batch_size=4, n_held_out=100, seed=0)
    with pytest.raises(ConfigError, match="at most 3"):
        find_judge(_ready(network), few, None, None, worker(tmp_path), batch_size=4, n_held_out=19, seed=0)
    with pytest.raises(ConfigError, match=r"evaluate\.train is null"):
        find_judge(FeatureConfig.tiny(), few, None, None, worker(tmp_path), batch_size=4, n_held_out=100, seed=0)


def test_the_same_network_is_recognized_whatever_its_head(network: TimmNetwork) -> None:
    mine = network.load().module  # type: ignore[attr-defined]
    torch.manual_seed(0)
    with_head = timm.create_model("test_resnet", num_classes=7)
    with_head.load_state_dict(mine.state_dict(), strict=False)
    torch.manual_seed(1)
    assert is_same(mine, with_head)
    assert not is_same(mine, timm.create_model("test_resnet", num_classes=7))
    assert not is_same(mine, torch.nn.Linear(2, 2))


def test_what_is_not_finite_is_not_compared() -> None:
    class _Broken:
        identity = type("Identity", (), {"kind": "timm"})

        def __call__(self, images: np.ndarray) -> object:
            return type("Seen", (), {"features": np.full((len(images), 2), np.nan, np.float32), "probabilities": None})

    with pytest.raises(DataError, match=r"not finite\n  got: +those of 3 of 3"):
        extract(_Broken(), [Pictures().images[:3]])  # type: ignore[arg-type]
