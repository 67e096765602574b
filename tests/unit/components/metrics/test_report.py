"""report.html: self-contained, escaped, well-formed, and deterministic."""

import base64
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from components.images.pictures import png_bytes
from components.metrics import presentation, svg
from components.metrics.measure import Vectors
from components.metrics.memorization import Memorization
from components.metrics.report import Figure, Page, Panel, build, cards, verdict

METRICS = {
    "fd": 2.5,
    "fd_low": 2.0,
    "fd_high": 3.0,
    "fd_floor": 1.25,
    "fd_ratio": 2.0,
    "precision": 0.9,
    "precision_real": 0.93,
    "recall": 0.8,
    "recall_real": 0.95,
    "memorization_share": 0.041,
    "memorization_share_pixels": 0.02,
    "memorization_expected": 0.05,
    "n_train": 1257.0,
    "n_held_out": 270.0,
}
CLASSES = {
    "inception_score": 8.1,
    "inception_score_real": 9.2,
    "class_entropy": 2.2,
    "class_entropy_real": 2.3,
    "class_kl": 0.01,
}
VOID = {"meta", "img", "br", "line", "rect", "circle", "polyline", "polygon"}


class _Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in VOID or tag in ("rect", "polygon"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _page(**changes: Any) -> Page:
    figure = Figure(png_bytes(np.zeros((4, 4, 3), np.uint8)), "zeros & <ones>")
    content: dict[str, Any] = {
        "title": "12 <pictures>", "lead": "Drawn & measured", "metrics": METRICS | CLASSES, "generated": figure,
        "real": figure, "closest": figure, "neighbors": figure,
        "panels": [Panel("Classes", svg.bars(["<a>", "b"], {"drawn": [0.5, 0.5]}, title="t"), "text")],
        "params": {"seed": 1}, "parents": {"sample": "ab" * 32}, "notes": ["one note"],
    }  # fmt: skip
    return Page(**(content | changes))


def test_is_well_formed_and_asks_for_nothing() -> None:
    html = build(_page())
    checker = _Checker()
    checker.feed(html)
    assert checker.open == []
    assert len(checker.sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in checker.sources)
    assert not re.search(r"https?://|<script|@import|url\(", html)


def test_pictures_are_inside_and_text_is_escaped() -> None:
    png = png_bytes(np.full((2, 2, 3), 7, np.uint8))
    html = build(_page(generated=Figure(png, "seven")))
    assert base64.b64encode(png).decode() in html
    assert "12 &lt;pictures&gt;" in html
    assert "<a>" not in html
    assert "<ones>" not in html
    assert html == build(_page(generated=Figure(png, "seven")))


def test_every_number_is_listed() -> None:
    html = build(_page())
    for name, value in METRICS.items():
        assert f"<td>{name}</td>" in html
        assert f"{value:.6g}" in html


def test_cards_follow_what_was_measured() -> None:
    names = [card.name for card in cards(METRICS)]
    assert len(names) == 4
    assert [card.name for card in cards(METRICS | CLASSES)][4:] == ["Classes, how evenly", "Inception score"]
    with_z = METRICS | {"representation_fd": 1.0, "representation_fd_floor": 0.5}
    assert cards(with_z)[-1].name == "Representations alone"


def test_verdict_says_the_headline() -> None:
    assert "2.0 times as far away" in verdict(METRICS)
    assert "4.1% lie suspiciously close" in verdict(METRICS)


def test_bar_heights_are_in_proportion() -> None:
    chart = svg.bars(["a", "b"], {"drawn": [0.2, 0.1], "real": [0.4, 0.0]}, title="t")
    heights = [float(h) for h in re.findall(r'<rect class="s\d"[^>]* height="([\d.]+)"', chart)]
    assert heights == pytest.approx([heights[2] / 2, heights[2] / 4, heights[2], 0.0], abs=0.1)


def _copies() -> Memorization:
    rng = np.random.default_rng(0)
    return Memorization(rng.uniform(1, 2, 50), rng.integers(0, 20, (50, 2)), rng.uniform(1, 2, 30), 5.0)


def test_panels_hold_shares_that_add_up() -> None:
    _, records = presentation.distance_panel(_copies(), "By features", "distance")
    for name in presentation.SETS:
        assert sum(float(str(r["share"])) for r in records if r["set"] == name) == pytest.approx(1)
    _, records = presentation.class_panel(np.array([0, 0, 1]), np.array([1, -1, 1, 0]), ["x", "y"])
    assert [round(float(str(r["share"])), 3) for r in records] == [0.667, 0.333, 0.333, 0.667]


def test_scatter_shows_both_sets() -> None:
    rng = np.random.default_rng(0)
    z = Vectors(rng.normal(size=(40, 5)), rng.normal(size=(20, 5)), rng.normal(size=(700, 5)))
    panel, records = presentation.representation_panel(z, 0)
    assert len(records) == 20 + presentation.N_DOTS
    assert panel.chart.count("<circle") == len(records)


def test_pictures_pair_each_sample_with_its_neighbor() -> None:
    copies = _copies()
    asked: list[np.ndarray] = []

    def train(indices: np.ndarray) -> np.ndarray:
        asked.append(indices)
        return np.zeros((len(indices), 8, 8, 3), np.uint8)

    def other(indices: np.ndarray) -> np.ndarray:
        return np.full((len(indices), 8, 8, 3), 255, np.uint8)

    first = presentation.pictures(other, other, train, sizes=(50, 30), copies=copies, seed=0)
    assert asked[-1].tolist() == copies.neighbor[copies.closest(presentation.N_PAIRS), 0].tolist()
    assert first == presentation.pictures(other, other, train, sizes=(50, 30), copies=copies, seed=0)
