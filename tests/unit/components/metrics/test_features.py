"""The feature network: its size check, its augmentations against plain loops, and that both tasks learn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.errors import ConfigError, DataError, DivergedError
from components.metrics.config import FeatureConfig
from components.metrics.features import LABEL_SMOOTHING, FeatureNet, fit, shifted, turned, unsmoothed
from components.metrics.fitting import RealImages, fit_network, pixel_vectors
from components.metrics.measure import at_chance
from components.metrics.networks.base import extract
from components.metrics.networks.trained import TrainedFeatures
from components.rng import BatchRng
from components.training.config import OptimConfig, TrainConfig
from tests.support.toys import worker

CONFIG = FeatureConfig(task="auto", px=8, width=8, dim=4)


class Bars:
    """Class 0: a bright row, class 1: a bright column, somewhere in the upper left; some rows have no label."""

    def __init__(self, n: int, *, labeled: bool = True) -> None:
        rng = np.random.default_rng(n)
        self.images = rng.integers(0, 60, (n, 8, 8, 3)).astype(np.uint8)
        self.labels: np.ndarray | None = np.arange(n) % 2
        for image, label, at in zip(self.images, self.labels, rng.integers(1, 4, n), strict=True):
            (image if label == 0 else image.swapaxes(0, 1))[at] = 255
        self.truth = self.labels.copy()
        self.labels[::5] = -1
        if not labeled:
            self.labels = None

    def __len__(self) -> int:
        return len(self.images)

    def load(self, indices: np.ndarray, px: int) -> np.ndarray:
        assert px == 8
        return self.images[indices]


def _how(steps: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=16,
        seed=1,
        optimizer=OptimConfig(kind="adamw", lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01, decay="matrices"),
        warmup_steps=2,
        schedule="cosine",
        clip_norm=None,
        precision="fp32",
        log_every=10,
    )


def test_auto_means_labels_only_where_there_are_any() -> None:
    assert CONFIG.resolve(["a", "b"]) == "labels"
    assert CONFIG.resolve(None) == "self"
    assert CONFIG.model_copy(update={"task": "self"}).resolve(["a", "b"]) == "self"
    with pytest.raises(ConfigError, match="auto"):
        CONFIG.model_copy(update={"task": "labels"}).resolve(None)


def test_at_most_a_fifth_as_many_features_as_held_out_images() -> None:
    CONFIG.check_size(20)
    with pytest.raises(ConfigError, match=r"set evaluate\.features\.dim: 3"):
        CONFIG.check_size(19)
    with pytest.raises(ConfigError, match=r"collect\.split"):
        CONFIG.check_size(5)


def test_shifting_moves_each_image_by_its_own_draw_and_repeats_the_border() -> None:
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = shifted(images, BatchRng(3, 6))
    starts = BatchRng(3, 6).integers(5, 2)
    for image, out, (down, right) in zip(images.numpy(), moved.numpy(), starts.tolist(), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="edge")
        assert (out == padded[:, down : down + 16, right : right + 16]).all()
    assert len({tuple(s) for s in starts.tolist()}) > 1


def test_turning_is_rot90() -> None:
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    turns = torch.tensor([0, 1, 2, 3, 1])
    for image, out, k in zip(images.numpy(), turned(images, turns).numpy(), turns.tolist(), strict=True):
        assert (out == np.rot90(image, k, axes=(1, 2))).all()


def test_labels_are_learned_from_labeled_images_alone(tmp_path: Path) -> None:
    train, new = Bars(200), Bars(61)
    net, curve = fit_network(CONFIG, "labels", RealImages(train, 8), 2, _how(60), worker(tmp_path), seed=0)
    features, probabilities = extract(TrainedFeatures(net, "labels"), RealImages(new, 8).batches(16))
    assert (probabilities.argmax(1) == new.truth).mean() > 0.9
    assert features.shape == (61, 4)
    assert features.dtype == np.float32
    assert probabilities.sum(1) == pytest.approx(1)
    assert curve[-1]["loss"] < 0.6 * curve[0]["loss"]


def test_without_labels_rotation_and_redrawing_are_learned(tmp_path: Path) -> None:
    net, curve = fit_network(
        CONFIG,
        "self",
        RealImages(Bars(200, labeled=False), 8),
        0,
        _how(150),
        worker(tmp_path),
        seed=0,
    )
    assert curve[-1]["accuracy"] > 0.4  # chance is 0.25; a turned row is a column, so 0.5 is the best
    assert curve[-1]["redraw_mse"] < curve[0]["redraw_mse"]
    assert net.head.out_features == 4


def test_equal_seeds_give_equal_bits_and_the_initial_weights_have_their_own(tmp_path: Path) -> None:
    def trained(seed: int) -> np.ndarray:
        train = RealImages(Bars(40), 8)
        net, _ = fit_network(CONFIG, "labels", train, 2, _how(3), worker(tmp_path), seed=seed)
        return extract(TrainedFeatures(net, "labels"), RealImages(Bars(10), 8).batches(4))[0]

    torch.manual_seed(0)
    first = trained(5)
    torch.manual_seed(1)
    assert (trained(5) == first).all()
    assert (trained(6) != first).any()


def test_no_labels_to_learn_from(tmp_path: Path) -> None:
    images = RealImages(Bars(9, labeled=False), 8)
    with pytest.raises(DataError, match="too few labeled"):
        fit_network(CONFIG, "labels", images, 2, _how(3), worker(tmp_path), seed=0)


def test_a_network_that_has_learned_nothing_is_told(tmp_path: Path) -> None:
    """Labels that are the opposite of what training showed."""
    train, new = Bars(200), Bars(151)
    assert new.labels is not None
    new.labels = np.where(new.labels < 0, new.labels, 1 - new.labels)
    net, _ = fit_network(CONFIG, "labels", RealImages(train, 8), 2, _how(60), worker(tmp_path), seed=0)
    _, probabilities = extract(TrainedFeatures(net, "labels"), RealImages(new, 8).batches(16))
    assert "labels right" in (at_chance(probabilities, new.labels) or "")


def test_an_accuracy_above_chance_by_luck_is_chance_and_one_beyond_it_is_not() -> None:
    """50 of 100 labels are of one class: 52 hits are likely by chance (p = 0.38), 60 are not (p = 0.03)."""
    labels = np.repeat([0, 1], 50)
    for hits, expected in ((52, True), (60, False)):
        named = np.where(np.arange(100) < hits, labels, 1 - labels)
        assert (at_chance(np.eye(2)[named], labels) is not None) is expected
    assert at_chance(np.eye(2)[labels[:99]], 1 - labels[:99]) is None  # too few to say


def test_one_class_is_no_classes() -> None:
    assert CONFIG.resolve(["all"]) == "self"
    with pytest.raises(ConfigError, match="too few"):
        CONFIG.model_copy(update={"task": "labels"}).resolve(["all"])


def test_unsmoothing_inverts_the_smoothing_of_labels() -> None:
    p = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    smoothed = (1 - LABEL_SMOOTHING) * p + LABEL_SMOOTHING / 3
    assert unsmoothed(smoothed).numpy() == pytest.approx(p.numpy())
    certain = torch.tensor([[0.999, 0.0005, 0.0005]], dtype=torch.float64)
    assert unsmoothed(certain).tolist() == [[1.0, 0.0, 0.0]]


def test_features_that_are_not_finite_are_an_error() -> None:
    net = FeatureNet(CONFIG, 2)
    with torch.no_grad():
        net.bottleneck.bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        extract(TrainedFeatures(net, "labels"), [np.zeros((2, 8, 8, 3), np.uint8)])


@pytest.mark.parametrize("px", [4, 7, 32])
def test_any_side(px: int) -> None:
    net = FeatureNet(FeatureConfig(task="auto", px=px, width=8, dim=3), 2)
    assert net(torch.rand(2, 3, 20, 20)).shape == (2, 3)


def test_fit_averages_when_it_shrinks() -> None:
    checker = torch.zeros(1, 3, 16, 16)
    checker[:, :, ::2, ::2] = checker[:, :, 1::2, 1::2] = 1
    inner = fit(checker, 4)[0, 0, 1:-1, 1:-1]
    assert inner.numpy() == pytest.approx(0.5, abs=0.02)


def test_pixel_vectors_measure_the_root_mean_squared_difference() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    vectors = np.concatenate(list(pixel_vectors([images[:2], images[2:]], 8)))
    expected = np.sqrt(np.square(images[0] / 255 - images[2] / 255).mean())
    assert np.linalg.norm(vectors[0] - vectors[2]) == pytest.approx(expected, rel=1e-5)
    large = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    assert next(pixel_vectors([large], 64)).shape == (2, 3 * 32 * 32)
