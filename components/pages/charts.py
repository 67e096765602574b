"""Charts: numbers at heights in proportion, in the colors of drawing.css, each value also in words.

They are drawn for the width of a phone, so that their text stays readable there, and grow with their panel.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from components.pages.svg import Drawing, tag, text

WIDTH, HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 10, 28
_MOST_LABELS = 8
_LETTER = 7.0  # width of a letter of 13 px, about

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""Name -> points (x, y); the order of the names gives the colors."""


@dataclass(frozen=True)
class Point:
    """A number with its interval, at one version. `marked` has a ring around it."""

    label: str
    value: float
    low: float
    high: float
    marked: bool = False


@dataclass(frozen=True)
class _Axis:
    """Numbers to shares of its length, between its ends."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, max(value, self.low)))
        return min(1.0, (at - low) / ((high - low) or 1.0))


@dataclass(frozen=True)
class _Frame:
    """The area between both axes."""

    y_axis: _Axis
    width: int = WIDTH
    percent: bool = False

    @property
    def inner(self) -> int:
        return self.width - _LEFT - _RIGHT

    def x(self, share: float) -> float:
        return _LEFT + share * self.inner

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - self.y_axis.share(value) * (HEIGHT - _BOTTOM - _TOP)

    def number(self, value: float) -> str:
        if self.percent:
            return f"{value:.0%}" if value >= 0.095 or value == 0 else f"{value:.1%}"
        return f"{value / 1000:.3g}k" if abs(value) >= 1000 else f"{value:.3g}"

    def ticks(self) -> list[Markup]:
        axis = self.y_axis
        middle = math.sqrt(axis.low * axis.high) if axis.log else (axis.low + axis.high) / 2
        values = (axis.low, middle, axis.high)
        lines = [tag("path", class_="axis", d=f"M{_LEFT} {self.y(v):.1f}H{self.width - _RIGHT}") for v in values]
        return lines + [text(_LEFT - 7, self.y(v) + 4.5, self.number(v), "end") for v in values]

    def rule(self, value: float) -> Markup:
        """A dashed line across."""
        return tag("path", class_="floor", d=f"M{_LEFT} {self.y(value):.1f}H{self.width - _RIGHT}")

    def labels(self, words: Sequence[str]) -> list[Markup]:
        """Below equal parts of the width, as many as there is room for; the last is always named."""
        widest = max((len(word) for word in words), default=0) * _LETTER + 6
        every = max(1, -(-len(words) // _MOST_LABELS), math.ceil(widest * len(words) / self.inner))
        kept = range(len(words) - 1, -1, -every)
        return [text(self.x((i + 0.5) / len(words)), HEIGHT - 9, words[i]) for i in kept]

    def drawing(self, parts: Sequence[Markup], title: str, names: Iterable[str] = ()) -> Drawing:
        """With a legend below, where there are several names."""
        keys, rows = _legend(list(names), self.width)
        return Drawing(title, [*self.ticks(), *parts, *keys], self.width, HEIGHT + 22 * rows)


def intervals(
    series: Mapping[str, Sequence[Point]],
    *,
    title: str,
    floor: float | None = None,
    percent: bool = False,
    width: int = WIDTH,
) -> Drawing:
    """Dots with whiskers for each version, side by side where there are several series; `floor` is a dashed line."""
    points = [point for its in series.values() for point in its]
    ends = [end for point in points for end in (point.low, point.high)] + ([floor] if floor is not None else [])
    frame = _Frame(_nice(min(ends, default=0.0), max(ends, default=1.0), percent=percent), width, percent)
    labels = [point.label for point in next(iter(series.values()), ())]
    parts = [] if floor is None else [frame.rule(floor)]
    for s, its in enumerate(series.values()):
        shift = (s - (len(series) - 1) / 2) * 11
        centers = [frame.x((i + 0.5) / len(its)) + shift for i in range(len(its))]
        line = _polyline(zip(centers, (frame.y(p.value) for p in its), strict=True), "line faint")
        parts.append(tag("g", line, *(_dot(x, p, frame) for x, p in zip(centers, its, strict=True)), class_=f"c{s}"))
    return frame.drawing([*parts, *frame.labels(labels)], title, series)


def _dot(x: float, p: Point, frame: _Frame) -> Markup:
    value, low, high = (frame.number(v) for v in (p.value, p.low, p.high))
    y = frame.y(p.value)
    return tag(
        "g",
        tag("title", f"{p.label}: {value} ({low} to {high})"),
        tag("path", class_="whisker", d=f"M{x:.1f} {frame.y(p.low):.1f}V{frame.y(p.high):.1f}"),
        tag("circle", class_="ring", cx=x, cy=y, r=8) if p.marked else "",
        tag("circle", class_="fill", cx=x, cy=y, r=4.5),
    )


def lines(
    series: Curves,
    *,
    title: str,
    x_name: str = "step",
    log: Literal["", "x", "xy"] = "",
    floor: float | None = None,
    ticks: Mapping[float, str] | None = None,
    width: int = WIDTH,
) -> Drawing | None:
    """Curves from the lowest value to a high one that a single early peak does not decide; None without a value.

    With `ticks`, places on the x axis and their names, every point has a dot; without, the ends are named.
    """
    points = [(x, y) for its in series.values() for x, y in its if math.isfinite(y)]
    if not points:
        return None
    xs, ys = sorted(x for x, _ in points), sorted(y for _, y in points)
    top = ys[-1] if ticks else ys[min(len(ys) - 1, int(0.98 * len(ys)))]
    bottom = ys[0] if floor is None else min(ys[0], floor)
    frame = _Frame(_Axis(bottom / 1.1, top * 1.1, log=True) if log == "xy" else _nice(bottom, top), width)
    x_axis = _Axis(xs[0] if log else 0.0, xs[-1] or 1.0, log=bool(log))
    parts = [] if floor is None else [frame.rule(floor)]
    for s, its in enumerate(series.values()):
        placed = [(frame.x(x_axis.share(x)), frame.y(y)) for x, y in its if math.isfinite(y)]
        dots = [tag("circle", class_="fill", cx=x, cy=y, r=3) for x, y in placed] if ticks else []
        parts.append(tag("g", _polyline(placed, "line"), *dots, class_=f"c{s}"))
    if ticks:
        parts += [text(frame.x(x_axis.share(x)), HEIGHT - 9, name) for x, name in ticks.items()]
    else:
        parts.append(text(_LEFT, HEIGHT - 9, "0", "start"))
    parts.append(text(width - _RIGHT, HEIGHT - 9, x_name if ticks else f"{x_name} {xs[-1]:,.0f}", "end"))
    return frame.drawing(parts, title, series)


def bars(
    series: Mapping[str, Mapping[str, float]], *, title: str, percent: bool = False, marked: Collection[str] = ()
) -> Drawing:
    """Bars by category, grouped where there are several series; those of `marked` categories have another color."""
    highest = max((value for its in series.values() for value in its.values()), default=1.0)
    frame = _Frame(_nice(0.0, highest, percent=percent), percent=percent)
    categories = list(next(iter(series.values())))
    each = 0.76 / max(1, len(series) * len(categories))
    parts = []
    for s, (name, values) in enumerate(series.items()):
        for i, (category, value) in enumerate(values.items()):
            x, y = frame.x((i + 0.12) / len(categories) + s * each), frame.y(value)
            told = f"{name + ', ' if name else ''}{category}: {f'{value:.1%}' if percent else f'{value:,.6g}'}"
            css = "c1" if category in marked else f"c{s}"
            wide = max(1.0, each * frame.inner - 0.5)
            bar = tag(
                "rect", tag("title", told), class_=f"{css} fill", x=x, y=y, width=wide, height=frame.y(0) - y, rx=1
            )
            parts.append(bar)
    return frame.drawing([*parts, *frame.labels([category[:12] for category in categories])], title, series)


def histogram(edges: Sequence[float], series: Mapping[str, Sequence[float]], *, title: str, x_name: str) -> Drawing:
    """Overlaid step histograms of shares over common bins."""
    highest = max((value for its in series.values() for value in its), default=1.0)
    frame = _Frame(_nice(0.0, highest, percent=True), percent=True)
    parts = []
    for s, (name, values) in enumerate(series.items()):
        corners = [(frame.x((i + end) / len(values)), frame.y(v)) for i, v in enumerate(values) for end in (0, 1)]
        outline = [(frame.x(0), frame.y(0)), *corners, (frame.x(1), frame.y(0))]
        parts.append(tag("polygon", tag("title", name), class_=f"c{s} area", points=_points(outline)))
    parts.append(text(_LEFT, HEIGHT - 9, f"{edges[0]:.3g}", "start"))
    parts.append(text(_LEFT + frame.inner / 2, HEIGHT - 9, x_name))
    parts.append(text(WIDTH - _RIGHT, HEIGHT - 9, f"{edges[-1]:.3g}", "end"))
    return frame.drawing(parts, title, series)


def scatter(series: Curves, *, title: str) -> Drawing:
    """Points in the plane, one color per set; both axes have the length of what is on them."""
    xs, ys = zip(*(point for its in series.values() for point in its), strict=True)
    across, up = _Axis(min(xs), max(xs)), _Axis(min(ys), max(ys))
    side = WIDTH - 16
    parts = []
    for s, (name, points) in enumerate(series.items()):
        dots = (tag("circle", cx=8 + side * across.share(x), cy=8 + side * (1 - up.share(y)), r=2) for x, y in points)
        parts.append(tag("g", tag("title", name), *dots, class_=f"c{s} dots"))
    keys, rows = _legend(list(series), WIDTH, WIDTH)
    return Drawing(title, [*parts, *keys], WIDTH, WIDTH + 22 * rows)


def difference(value: float, low: float, high: float, limit: float, *, title: str) -> Drawing:
    """One interval on a line with zero and a limit that its upper end may not pass."""
    reach = 1.15 * max(abs(low), abs(high), abs(limit), 1e-9)
    middle, half = 40, WIDTH / 2

    def x(v: float) -> float:
        return half + v / reach * (half - 14)

    span = tag("path", d=f"M{x(low):.1f} {middle}H{x(high):.1f}")
    parts = [
        tag("path", class_="axis", d=f"M0 {middle}H{WIDTH}"),
        tag("path", class_="axis", d=f"M{half} {middle - 14}V{middle + 14}"),
        text(half, middle + 30, "0"),
        tag("path", class_="floor", d=f"M{x(limit):.1f} {middle - 20}V{middle + 14}"),
        text(min(WIDTH - 44.0, max(44.0, x(limit))), 14, f"limit {limit:.3g}"),
        tag("g", span, tag("circle", cx=x(value), cy=middle, r=5), class_=f"{'good' if high <= limit else 'bad'} span"),
        text(2, middle + 30, "better", "start"),
        text(WIDTH - 2, middle + 30, "worse", "end"),
    ]
    return Drawing(f"{title}: {value:.3g} ({low:.3g} to {high:.3g})", parts, WIDTH, 78)


def gauge(share: float, *, title: str) -> Drawing:
    """A bar filled to a share (0..1)."""
    filled = 100 * min(1.0, max(0.0, share))
    parts = [tag("rect", width=wide, height=2, rx=1, class_=css) for wide, css in ((100, "track"), (filled, "c0 fill"))]
    return Drawing(title, parts, 100, 2, css="gauge")


def _nice(low: float, high: float, *, percent: bool = False) -> _Axis:
    """Ends at round numbers; zero where it is not far off."""
    low = 0.0 if 0 <= low <= 0.6 * high else low
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 2))
    unit = next(unit * m for m in (1, 2, 5, 10) if span / (unit * m) <= 5)
    bottom, top = math.floor(low / unit + 1e-9) * unit, math.ceil(high / unit - 1e-9) * unit
    top = max(top, bottom + unit)
    return _Axis(bottom, min(top, 1.0) if percent else top)


def _legend(names: Sequence[str], width: int, top: int = HEIGHT) -> tuple[list[Markup], int]:
    """(colored names below a chart, the rows that they fill); nothing for a single name."""
    if len(names) < 2:
        return [], 0
    parts, x, row = [], _LEFT, 0
    for s, name in enumerate(names):
        needed = 22 + len(name) * _LETTER
        if x > _LEFT and x + needed > width:
            x, row = _LEFT, row + 1
        y = top + 14 + 22 * row
        parts += [tag("circle", class_=f"c{s} fill", cx=x + 5.0, cy=y - 4.5, r=5), text(x + 15, y, name, "start")]
        x += int(needed) + 8
    return parts, row + 1


def _polyline(points: Iterable[tuple[float, float]], css: str) -> Markup:
    return tag("polyline", class_=css, points=_points(points))


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
