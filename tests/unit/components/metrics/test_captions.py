"""Whether captions are found from pictures, in a space fitted on training pictures: a world that is known."""

from itertools import product

import numpy as np
import pytest
import torch

from components.metrics.captions import (
    Captioned,
    CaptionJudge,
    Labeled,
    caption_metrics,
    class_metrics,
    fit_judge,
    numbered,
)
from components.text.config import WordsConfig

COLORS, THINGS = ("red", "green", "blue", "pink", "black"), ("car", "house", "tree", "fish", "star")
CAPTIONS = [f"a {color} {thing}" for color, thing in product(COLORS, THINGS)]
D = 24


def texts(captions: list[str]) -> torch.Tensor:
    return WordsConfig(kind="words", dim=64, max_tokens=8, seed=3).build().read(captions).pooled


def pictures(n: int, seed: int, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Features in which color and thing each have a direction, and the caption of each."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(7)
    color, thing = world.normal(size=(5, D)), world.normal(size=(5, D))
    caption = rng.integers(0, len(CAPTIONS), n)
    x = color[caption // 5] + thing[caption % 5] + noise * rng.normal(size=(n, D))
    return x.astype(np.float32) * 9 + 4, caption


@pytest.fixture(scope="module")
def judge() -> CaptionJudge:
    x, caption = pictures(400, 0)
    unseen = caption == 7  # words that are known, together for the first time
    return fit_judge(x[~unseen], texts([CAPTIONS[i] for i in caption[~unseen]]))


def measured(judge: CaptionJudge, x: np.ndarray, caption: np.ndarray) -> dict[str, float]:
    return dict(caption_metrics(judge, texts(CAPTIONS), Captioned(x, caption), Captioned(*pictures(200, 1))))


def test_pictures_that_follow_their_captions_are_like_real_ones(judge: CaptionJudge) -> None:
    m = measured(judge, *pictures(300, 2))
    assert m["caption_r1"] > 0.8
    assert abs(m["caption_r1"] - m["caption_r1_real"]) < 0.15
    assert m["caption_r1_floor"] < 0.05
    assert m["caption_cosine_floor"] < 0.2
    assert m["caption_cosine"] > 0.4
    assert m["caption_diversity"] == pytest.approx(m["caption_diversity_real"], rel=0.2)
    x, caption = pictures(600, 3)
    assert measured(judge, x[caption == 7], caption[caption == 7])["caption_r1"] > 0.6


def test_pictures_that_ignore_their_captions_are_at_the_floor(judge: CaptionJudge) -> None:
    x, caption = pictures(300, 2)
    m = measured(judge, x, np.random.default_rng(0).permutation(caption))
    assert m["caption_r1"] < 0.12
    assert m["caption_r5"] < 0.35
    assert abs(m["caption_cosine"] - m["caption_cosine_floor"]) < 0.15


def test_one_picture_for_each_caption_has_a_high_cosine_and_no_diversity(judge: CaptionJudge) -> None:
    x, caption = pictures(100, 4, noise=0.0)
    m, real = measured(judge, x, caption), measured(judge, *pictures(300, 2))
    assert m["caption_cosine"] > real["caption_cosine"]
    assert m["caption_diversity"] < 1e-5 < real["caption_diversity"]


def test_texts_that_say_nothing_of_the_pictures_are_not_believed() -> None:
    x, caption = pictures(200, 0)
    noise = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    believed = fit_judge(x, noise).weight.norm()
    assert believed < 0.2 * fit_judge(x, texts([CAPTIONS[i] for i in caption])).weight.norm()


def test_a_text_is_what_ridge_regression_says() -> None:
    """Against the normal equations, at the penalty that was taken."""
    x, caption = pictures(60, 0)
    t = texts([CAPTIONS[i] for i in caption]).double()
    judge = fit_judge(x, t)
    y = (torch.from_numpy(x).double() - judge.mean) @ judge.axes
    torch.testing.assert_close(y.T @ y / 60, torch.eye(y.shape[1], dtype=torch.float64), atol=1e-6, rtol=0)
    centered = t - t.mean(0)
    residual = centered.T @ (y - centered @ judge.weight)  # = penalty * weight
    ratio = float((residual * judge.weight).sum() / judge.weight.square().sum())
    torch.testing.assert_close(residual, ratio * judge.weight, atol=1e-6, rtol=1e-5)


def test_a_probe_of_real_pictures_sees_the_class_that_a_caption_is_of() -> None:
    (x, caption), (x_drawn, told), (x_real, own) = pictures(400, 0), pictures(300, 2), pictures(200, 1)
    y, asked = caption // 5, told // 5
    y[::7], asked[::9] = -1, -1  # labels that are not known
    train, real = Labeled(x, y), Labeled(x_real, own // 5)
    follows = class_metrics(train, Labeled(x_drawn, asked), real)
    assert follows["caption_class"] > 0.95
    assert follows["caption_class_real"] > 0.95
    assert follows["caption_class_floor"] == pytest.approx(0.2, abs=0.05)
    ignores = class_metrics(train, Labeled(x_drawn, np.random.default_rng(0).permutation(asked)), real)
    assert ignores["caption_class"] == pytest.approx(ignores["caption_class_floor"], abs=0.1)
    assert class_metrics(train, Labeled(x_drawn, np.full(300, -1)), real) == {}
    assert class_metrics(Labeled(x, np.zeros(400, np.int64)), Labeled(x_drawn, asked), real) == {}


def test_numbers_of_captions() -> None:
    assert numbered(["b", "a", "c"], ["a", "b"]).tolist() == [1, 0, -1]
