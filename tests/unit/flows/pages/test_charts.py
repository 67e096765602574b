"""Charts: values at heights in proportion, intervals around them, words for those who hear instead of see."""

import re
import xml.etree.ElementTree as ET

import pytest

from components.metrics.intervals import wilson
from flows.pages import charts
from flows.pages.charts import HEIGHT, WIDTH, Point


def _circles(text: str) -> list[float]:
    return [float(y) for y in re.findall(r'cy="([\d.]+)" r="4.5"', text)]


def test_heights_are_in_proportion() -> None:
    points = [Point("v1", 4.0, 3.0, 5.0), Point("v2", 2.0, 1.0, 3.0, css="champion"), Point("v3", 0.0, 0.0, 1.0)]
    text = charts.over_versions({"fd": points}, title="t", floor=1.0)
    a, b, c = _circles(text)
    assert c - b == pytest.approx(b - a, abs=0.11)
    assert a < b < c < HEIGHT
    assert text.count("ring") == 1
    assert "<title>v1: 4 (3 to 5)</title>" in text
    assert 'class="line2"' in text


def test_intervals_reach_from_low_to_high() -> None:
    text = charts.over_versions({"": [Point("v1", 0.5, 0.25, 0.75)]}, title="t", percent=True)
    top, bottom = map(float, re.findall(r'<path d="M[\d.]+ ([\d.]+)V([\d.]+)"', text)[0][::-1])
    assert top < _circles(text)[0] < bottom
    assert "50% (25% to 75%)" in text


def test_every_chart_is_well_formed_and_inside_its_box() -> None:
    point = Point("<v>", -1.0, -2.0, 3e4)
    made = [
        charts.over_versions({"a": [point], "b": [point]}, title='"<&'),
        charts.over_versions({"a": []}, title="none"),
        charts.curves({"a": [(1.0, 2.0), (9.0, 1.0)], "b": [(3.0, float("inf"))]}, title="t"),
        charts.bars({"a": 1.0, "b": 2000.0}, title="t", new=["b"]),
        charts.bars({"a": 0.0}, title="t"),
        charts.difference(-1.0, -2.0, 0.5, 0.1, title="t"),
        charts.difference(0.0, 0.0, 0.0, 0.0, title="t"),
    ]
    for text in made:
        root = ET.fromstring(text)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
        for circle in root.iter("circle"):
            assert 0 <= float(circle.attrib["cx"]) <= WIDTH
            assert 0 <= float(circle.attrib["cy"]) <= HEIGHT
    assert charts.curves({"a": []}, title="t") == ""


def test_many_versions_keep_their_labels_apart() -> None:
    text = charts.over_versions({"": [Point(f"v{i}", i, i, i) for i in range(60)]}, title="t")
    labels = re.findall(r">(v\d+)</text>", text)
    assert len(labels) <= 8
    assert "v59" in labels, "the newest is named"


def test_the_difference_says_whether_it_passed() -> None:
    assert "good span" in charts.difference(-1.0, -2.0, 0.05, 0.1, title="t")
    assert "bad span" in charts.difference(-1.0, -2.0, 0.11, 0.1, title="t")


def test_wilson_against_a_known_value() -> None:
    low, high = wilson(0.5, 100)  # Wilson 1927; (0.4038, 0.5962) in every table
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(0.3, 0) == (0.3, 0.3)
