"""Charts: values at heights in proportion, intervals around them, words for those who hear instead of see."""

import re
import xml.etree.ElementTree as ET

import pytest

from components.metrics.intervals import wilson
from components.pages import charts
from components.pages.charts import HEIGHT, WIDTH, Point
from components.pages.svg import Drawing


def _svg(drawing: Drawing | None) -> str:
    assert drawing is not None
    return drawing.__html__()


def _circles(text: str) -> list[float]:
    return [float(y) for y in re.findall(r'cy="([\d.]+)" r="4.5"', text)]


def test_heights_are_in_proportion() -> None:
    points = [Point("v1", 4.0, 3.0, 5.0), Point("v2", 2.0, 1.0, 3.0, marked=True), Point("v3", 0.0, 0.0, 1.0)]
    text = _svg(charts.intervals({"fd": points}, title="t", floor=1.0))
    a, b, c = _circles(text)
    assert c - b == pytest.approx(b - a, abs=0.11)
    assert a < b < c < HEIGHT
    assert text.count('class="ring"') == 1
    assert "<title>v1: 4 (3 to 5)</title>" in text
    assert 'class="floor"' in text


def test_intervals_reach_from_low_to_high() -> None:
    text = _svg(charts.intervals({"": [Point("v1", 0.5, 0.25, 0.75)]}, title="t", percent=True))
    top, bottom = map(float, re.findall(r'd="M[\d.]+ ([\d.]+)V([\d.]+)"', text)[0][::-1])
    assert top < _circles(text)[0] < bottom
    assert "50% (25% to 75%)" in text


def test_bar_heights_are_in_proportion() -> None:
    text = _svg(charts.bars({"drawn": {"a": 0.2, "b": 0.1}, "real": {"a": 0.4, "b": 0.0}}, title="t", percent=True))
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', text)]
    assert heights == pytest.approx([heights[2] / 2, heights[2] / 4, heights[2], 0.0], abs=0.1)
    assert "<title>real, a: 40.0%</title>" in text


def test_logarithmic_axes_put_equal_factors_at_equal_distances() -> None:
    curve = [(10.0, 1.0), (100.0, 10.0), (1000.0, 100.0)]
    text = _svg(charts.lines({"": curve}, title="t", log="xy", ticks={10: "10", 1000: "1,000"}))
    (ax, ay), (bx, by), (cx, cy) = ((float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text))
    assert bx - ax == pytest.approx(cx - bx, abs=0.11) != 0
    assert by - ay == pytest.approx(cy - by, abs=0.11) != 0


def test_every_chart_is_well_formed_and_inside_its_box() -> None:
    point, name = Point("<v>", -1.0, -2.0, 3e4), '"<&'
    made = [
        charts.intervals({name: [point], "b": [point]}, title=name),
        charts.intervals({"a": []}, title="none"),
        charts.lines({name: [(1.0, 2.0), (9.0, 1.0)], "b": [(3.0, float("inf"))]}, title="t"),
        charts.lines({"a": [(1.0, 1.0)]}, title="t", log="xy", floor=0.5, ticks={1.0: name}),
        charts.bars({"": {"a": 1.0, name: 2000.0}}, title="t", marked=[name]),
        charts.bars({"": {"a": 0.0}}, title="t"),
        charts.histogram([0.0, 1.0, 2.0], {name: [0.5, 0.5], "b": [0.0, 1.0]}, title="t", x_name=name),
        charts.scatter({name: [(0.0, 1.0), (2.0, 3.0)], "b": []}, title="t"),
        charts.scatter({"a": [(1.0, 1.0)]}, title="t"),
        charts.difference(-1.0, -2.0, 0.5, 0.1, title="t"),
        charts.difference(0.0, 0.0, 0.0, 0.0, title="t"),
        charts.gauge(1.5, title=name),
    ]
    for drawing in made:
        assert drawing is not None
        for text in (drawing.__html__(), drawing.file()):
            root = ET.fromstring(text)
            assert root.attrib["role"] == "img"
            assert root.attrib["aria-label"]
            for circle in (found for found in root.iter() if found.tag.endswith("circle")):
                assert 0 <= float(circle.attrib["cx"]) <= WIDTH
                assert 0 <= float(circle.attrib["cy"]) <= drawing.height
    assert charts.lines({"a": []}, title="t") is None


def test_a_file_of_its_own_brings_its_colors() -> None:
    text = charts.gauge(0.5, title="half").file()
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"@import|url\(|<script", text)


def test_several_series_are_named_below() -> None:
    one, two = (
        _svg(charts.histogram([0, 1], {key: [1.0] for key in names}, title="t", x_name="x")) for names in ("a", "ab")
    )
    assert ">a</text>" not in one
    assert ">a</text>" in two
    assert ">b</text>" in two


def test_many_versions_keep_their_labels_apart() -> None:
    text = _svg(charts.intervals({"": [Point(f"v{i}", i, i, i) for i in range(60)]}, title="t"))
    labels = re.findall(r">(v\d+)</text>", text)
    assert len(labels) <= 8
    assert "v59" in labels, "the newest is named"


def test_the_difference_says_whether_it_passed() -> None:
    assert "good span" in _svg(charts.difference(-1.0, -2.0, 0.05, 0.1, title="t"))
    assert "bad span" in _svg(charts.difference(-1.0, -2.0, 0.11, 0.1, title="t"))


def test_wilson_against_a_known_value() -> None:
    low, high = wilson(0.5, 100)  # Wilson 1927; (0.4038, 0.5962) in every table
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(0.3, 0) == (0.3, 0.3)
