"""Charts of the report as inline SVG: no script and no font of their own, colors from the page's style sheet.

They are drawn for the width of a phone, so that their text stays readable there, and grow with their panel.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 8, 10, 28
_MOST_LABELS = 8


@dataclass(frozen=True)
class Point:
    """A number with its interval, at one version. `css` marks it: champion or open."""

    label: str
    value: float
    low: float
    high: float
    css: str = ""


@dataclass(frozen=True)
class _Scale:
    """Numbers to heights, between round ends."""

    low: float
    high: float

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - _BOTTOM - min(1.0, max(0.0, share)) * (HEIGHT - _BOTTOM - _TOP)


def over_versions(
    series: Mapping[str, Sequence[Point]], *, title: str, floor: float | None = None, percent: bool = False
) -> str:
    """Dots with whiskers for each version, side by side where there are several series; `floor` is a dashed line."""
    points = [point for its in series.values() for point in its]
    ends = [end for point in points for end in (point.low, point.high)] + ([floor] if floor is not None else [])
    scale = _nice(min(ends, default=0.0), max(ends, default=1.0), percent=percent)
    labels = [point.label for point in next(iter(series.values()), ())]
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(labels))
    parts = _ticks(scale, percent=percent)
    if floor is not None:
        parts.append(f'<path class="line2" d="M{_LEFT} {scale.y(floor):.1f}H{WIDTH - _RIGHT}"/>')
    for s, its in enumerate(series.values()):
        shift = (s - (len(series) - 1) / 2) * 11
        centers = [_LEFT + (i + 0.5) * step + shift for i in range(len(its))]
        path = " ".join(f"{x:.1f},{scale.y(p.value):.1f}" for x, p in zip(centers, its, strict=True))
        parts.append(f'<polyline class="line{s}" style="opacity:.35" points="{path}"/>')
        parts += [_dot(x, p, scale, f"line{s}", percent=percent) for x, p in zip(centers, its, strict=True)]
    every = max(1, -(-len(labels) // _MOST_LABELS))
    for i in range(len(labels) - 1, -1, -every):
        parts.append(_text(_LEFT + (i + 0.5) * step, HEIGHT - 9, labels[i], "middle"))
    return _svg(parts, title)


def _dot(x: float, p: Point, scale: _Scale, css: str, *, percent: bool) -> str:
    spoken = f"{p.label}: {_number(p.value, percent)} ({_number(p.low, percent)} to {_number(p.high, percent)})"
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{scale.y(p.value):.1f}" r="8"/>' if p.css == "champion" else ""
    return (
        f'<g class="{css} point"><title>{escape(spoken)}</title>'
        f'<path d="M{x:.1f} {scale.y(p.low):.1f}V{scale.y(p.high):.1f}"/>{ring}'
        f'<circle cx="{x:.1f}" cy="{scale.y(p.value):.1f}" r="4.5"/></g>'
    )


def curves(series: Mapping[str, Sequence[tuple[float, float]]], *, title: str) -> str:
    """Lines over steps, from the lowest value to a high one that a single early peak does not decide."""
    values = sorted(y for its in series.values() for _, y in its if math.isfinite(y))
    if not values:
        return ""
    top = values[min(len(values) - 1, int(0.98 * len(values)))]
    scale = _nice(values[0], max(top, values[0] + 1e-9))
    last = max(x for its in series.values() for x, _ in its) or 1.0
    parts = _ticks(scale)
    for s, its in enumerate(series.values()):
        path = " ".join(f"{_LEFT + x / last * (WIDTH - _LEFT - _RIGHT):.1f},{scale.y(y):.1f}" for x, y in its)
        parts.append(f'<polyline class="line{min(s, 2)}" points="{path}"/>')
    parts.append(_text(_LEFT, HEIGHT - 9, "0", "start"))
    parts.append(_text(WIDTH - _RIGHT, HEIGHT - 9, f"step {last:,.0f}", "end"))
    return _svg(parts, title)


def bars(values: Mapping[str, float], *, title: str, new: Sequence[str] = ()) -> str:
    """One bar per name; those in `new` have another color."""
    scale = _nice(0.0, max(values.values(), default=1.0))
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    parts = _ticks(scale)
    every = max(1, -(-len(values) // _MOST_LABELS))
    for i, (name, value) in enumerate(values.items()):
        y, x = scale.y(value), _LEFT + i * step + step * 0.12
        css = "bar new" if name in new else "bar"
        parts.append(
            f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(1.0, step * 0.76):.1f}" '
            f'height="{HEIGHT - _BOTTOM - y:.1f}" rx="2"><title>{escape(f"{name}: {value:,.6g}")}</title></rect>'
        )
        if i % every == 0:
            parts.append(_text(x + step * 0.38, HEIGHT - 9, name, "middle"))
    return _svg(parts, title)


def difference(value: float, low: float, high: float, limit: float, *, title: str) -> str:
    """One interval on a line with zero and a limit that its upper end may not pass."""
    reach = 1.15 * max(abs(low), abs(high), abs(limit), 1e-9)
    middle = 40

    def x(v: float) -> float:
        return WIDTH / 2 + v / reach * (WIDTH / 2 - 14)

    passed = "good" if high <= limit else "bad"
    parts = [
        f'<path class="axis" d="M0 {middle}H{WIDTH}"/>',
        f'<path class="axis" d="M{WIDTH / 2} {middle - 14}V{middle + 14}"/>',
        _text(WIDTH / 2, middle + 30, "0", "middle"),
        f'<path class="line2" d="M{x(limit):.1f} {middle - 20}V{middle + 14}"/>',
        _text(min(WIDTH - 44.0, max(44.0, x(limit))), 14, f"limit {limit:.3g}", "middle"),
        f'<g class="{passed} span"><path d="M{x(low):.1f} {middle}H{x(high):.1f}"/>'
        f'<circle cx="{x(value):.1f}" cy="{middle}" r="5"/></g>',
        _text(2, middle + 30, "better", "start"),
        _text(WIDTH - 2, middle + 30, "worse", "end"),
    ]
    return _svg(parts, f"{title}: {value:.3g} ({low:.3g} to {high:.3g})", 78)


def legend(names: Sequence[str]) -> str:
    """Colored names below a chart."""
    items = "".join(f'<span><i class="k{min(s, 2)}"></i>{escape(name)}</span>' for s, name in enumerate(names))
    return f'<p class="legend">{items}</p>'


def _nice(low: float, high: float, *, percent: bool = False) -> _Scale:
    """Ends at round numbers; zero where it is not far off."""
    low = 0.0 if 0 <= low <= 0.6 * high else low
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 2))
    unit = next(unit * m for m in (1, 2, 5, 10) if span / (unit * m) <= 5)
    bottom, top = math.floor(low / unit + 1e-9) * unit, math.ceil(high / unit - 1e-9) * unit
    top = max(top, bottom + unit)
    return _Scale(bottom, min(top, 1.0) if percent else top)


def _ticks(scale: _Scale, *, percent: bool = False) -> list[str]:
    values = [scale.low + share * (scale.high - scale.low) for share in (0.0, 0.5, 1.0)]
    lines = [f'<path class="axis" d="M{_LEFT} {scale.y(v):.1f}H{WIDTH - _RIGHT}"/>' for v in values]
    return lines + [_text(_LEFT - 7, scale.y(v) + 4.5, _number(v, percent), "end") for v in values]


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{value:.0%}" if value >= 0.095 or value == 0 else f"{value:.1%}"
    return f"{value / 1000:.3g}k" if abs(value) >= 1000 else f"{value:.3g}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], title: str, height: int = HEIGHT) -> str:
    opening = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return f"{opening}{''.join(parts)}</svg>"
