"""The page of an evaluation: self-contained, escaped, deterministic, and its plots hold what was measured."""

import base64
import re

import numpy as np
import pytest

from components.metrics.advice import advise
from components.metrics.measure import Vectors
from components.metrics.memorization import Memorization
from flows.stages.evaluate import page
from tests.support.hostile import assert_harmless
from tests.support.shown import CLASSES, METRICS, OWN, PNG, REPRESENTATIONS, evaluation_page


def test_is_deterministic_holds_its_pictures_and_asks_for_nothing() -> None:
    html = evaluation_page()
    assert html == evaluation_page()
    assert html.count(f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}"') == 4
    assert not re.search(r"https?://(?!www.w3.org/2000/svg)|<script|@import|url\(", html)
    assert_harmless(html)


def test_every_number_is_listed() -> None:
    html = evaluation_page()
    for name, value in METRICS.items():
        assert f'<th scope="row">{name}</th><td>{value:.6g}</td>' in html


def test_cards_follow_what_was_measured() -> None:
    def names(metrics: dict[str, float]) -> list[str]:
        return re.findall(r'<div class="card"><h3>(.*?)</h3>', evaluation_page(metrics))

    assert len(names(METRICS)) == 8
    assert names(METRICS | CLASSES)[7:] == ["Classes, how evenly", "Inception score", "Blockiness"]
    assert names(METRICS | REPRESENTATIONS)[7:] == ["Blockiness", "Representations alone", "Follows its representation"]
    assert "Own picture" in names(METRICS | OWN)


def test_for_few_pictures_the_page_leads_with_what_is_valid_there_and_says_why() -> None:
    few, many = evaluation_page(advice=advise(800, 270, 16, k=3, n_labels=40)), evaluation_page()
    cards = [re.findall(r'<div class="card"><h3>(.*?)</h3>', page) for page in (few, many)]
    assert cards[0].index("KID ×1000") < cards[0].index("Precision") < cards[0].index("Fréchet distance")
    assert cards[1][0] == "Fréchet distance"
    text = " ".join(few.split())
    assert "270 pictures are few: KID, which is unbiased at any number, comes first" in text
    assert "By KID the drawn pictures are at 2, the training pictures at 0.1." in text
    assert "Only 40 held-out pictures have labels" in text
    assert "times as far away" not in text
    assert "pictures are few" not in many


def test_the_headline_is_said_in_words() -> None:
    text = " ".join(evaluation_page().split())
    assert "1,200 pictures that do not exist" in text
    assert "Drawn by a dit from representations dreamed up by a second model, after 1,257 real pictures" in text
    assert "2.0 times as far away" in text
    assert "4.1% lie suspiciously close" in text


def test_a_distance_that_real_pictures_may_have_too_ranks_nothing() -> None:
    text = " ".join(evaluation_page(METRICS | {"fd_low": 0.25, "fd_floor": 1.5, "fd_high": 4.0}).split())
    assert "the drawn ones cannot be told from the training pictures" in text
    assert '<h3>Fréchet distance</h3><div class="value">0.25 … 4</div>' in text
    assert "so this ranks nothing" in text
    assert "times as far away" not in text


def test_a_blind_judge_leads_the_page_and_its_numbers_are_gone() -> None:
    text = " ".join(evaluation_page(METRICS | CLASSES, blind=["it tells noise from pictures by chance"]).split())
    assert text.index("The judge is blind.") < text.index("Drawn by the model, in the order")
    assert "It tells noise from pictures by chance. Whatever it says" in text
    assert "raise evaluate.train.steps" in text
    assert "2.0% of the drawn pictures lie suspiciously close to a training picture, by their pixels" in text
    for gone in ("times as far", "pass for real", "Inception score", "<h3>Precision", 'row">fd<', ">Classes<", " px<"):
        assert gone not in text
    assert 'scope="row">control_fd_noise<' in text


def test_precision_that_noise_has_too_is_not_said() -> None:
    text = " ".join(evaluation_page(METRICS | {"precision_blind": 1.0, "control_p_precision_noise": 0.7}).split())
    assert "How many of them pass for real is not said: of noise nearly as many would." in text
    assert "<h3>Precision" not in text
    assert "<h3>Fréchet distance" in text


def _copies() -> Memorization:
    rng = np.random.default_rng(0)
    return Memorization(rng.uniform(1, 2, 50), rng.integers(0, 20, (50, 2)), rng.uniform(1, 2, 30), 5.0)


def test_plots_hold_shares_that_add_up() -> None:
    records = page.distance_plot("feature", _copies(), "distance").records
    for name in page.SETS:
        assert sum(float(str(r["share"])) for r in records if r["set"] == name) == pytest.approx(1)
    records = page.class_plot(np.array([0, 0, 1]), np.array([1, -1, 1, 0]), ["x", "y"]).records
    assert [round(float(str(r["share"])), 3) for r in records] == [0.667, 0.333, 0.333, 0.667]


def test_scatter_shows_both_sets() -> None:
    rng = np.random.default_rng(0)
    z = Vectors(rng.normal(size=(40, 5)), rng.normal(size=(20, 5)), rng.normal(size=(700, 5)))
    plot = page.representation_plot(z, 0)
    assert len(plot.records) == 20 + page.N_DOTS
    assert plot.chart is not None
    assert plot.chart.__html__().count('r="2"') == len(plot.records)


def test_pictures_pair_each_sample_with_its_neighbor() -> None:
    copies = _copies()
    asked: list[np.ndarray] = []

    def train(indices: np.ndarray) -> np.ndarray:
        asked.append(indices)
        return np.zeros((len(indices), 8, 8, 3), np.uint8)

    def other(indices: np.ndarray) -> np.ndarray:
        return np.full((len(indices), 8, 8, 3), 255, np.uint8)

    first = page.pictures(other, other, train, sizes=(50, 30), copies=copies, painted=None, seed=0)
    assert asked[-1].tolist() == copies.neighbor[copies.closest(page.N_PAIRS), 0].tolist()
    assert first == page.pictures(other, other, train, sizes=(50, 30), copies=copies, painted=None, seed=0)
