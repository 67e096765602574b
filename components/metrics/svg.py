"""Small charts as inline SVG: no script, no font, colors from the page's CSS variables."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 240, 44, 34, 10

Series = Mapping[str, Sequence[float]]
"""Name -> one value per category or bin; the order gives the colors s0, s1, s2 of the page's CSS."""


def bars(categories: Sequence[str], series: Series, *, title: str) -> str:
    """Grouped bars; values are shares (0..1) and shown in percent."""
    top = max((v for values in series.values() for v in values), default=0.0) or 1.0
    step = (WIDTH - LEFT) / max(1, len(categories))
    each = step * 0.8 / max(1, len(series))
    parts = _percent_axis(top)
    for s, (name, values) in enumerate(series.items()):
        for i, value in enumerate(values):
            h = value / top * (HEIGHT - BOTTOM - TOP)
            x = LEFT + i * step + step * 0.1 + s * each
            label = f"{name}, {categories[i]}: {value:.1%}"
            parts.append(
                f'<rect class="s{s}" x="{x:.1f}" y="{HEIGHT - BOTTOM - h:.1f}" width="{max(0.5, each - 1):.1f}" '
                f'height="{h:.1f}"><title>{escape(label)}</title></rect>'
            )
    every = -(-len(categories) // 20)
    for i in range(0, len(categories), every):
        parts.append(_text(LEFT + (i + 0.5) * step, HEIGHT - BOTTOM + 18, categories[i][:12], "middle"))
    return _svg(parts, title) + legend(list(series))


def histogram(edges: Sequence[float], series: Series, *, title: str, axis: str) -> str:
    """Overlaid step histograms of shares over common bins."""
    top = max((v for values in series.values() for v in values), default=0.0) or 1.0
    parts = _percent_axis(top)
    for s, (name, values) in enumerate(series.items()):
        points = [f"{LEFT:.1f},{HEIGHT - BOTTOM:.1f}"]
        for i, value in enumerate(values):
            y = HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP)
            points += [f"{_x(i, len(values)):.1f},{y:.1f}", f"{_x(i + 1, len(values)):.1f},{y:.1f}"]
        points.append(f"{WIDTH:.1f},{HEIGHT - BOTTOM:.1f}")
        parts.append(f'<polygon class="s{s} area" points="{" ".join(points)}"><title>{escape(name)}</title></polygon>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = edges[0] + share * (edges[-1] - edges[0])
        anchor = {0.0: "start", 1.0: "end"}.get(share, "middle")
        parts.append(_text(LEFT + share * (WIDTH - LEFT), HEIGHT - BOTTOM + 15, f"{value:.3g}", anchor))
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 4, axis, "middle"))
    return _svg(parts, title) + legend(list(series))


def scatter(series: Mapping[str, np.ndarray], *, title: str) -> str:
    """Points in the plane, one color per set. Shapes: each (n, 2)."""
    everything = np.concatenate([points for points in series.values() if len(points)])
    low, high = everything.min(axis=0), everything.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    height = 420
    parts = []
    for s, (name, points) in enumerate(series.items()):
        placed = (points - low) / span * (WIDTH - 16, height - 16) + 8
        dots = "".join(f'<circle cx="{x:.0f}" cy="{height - y:.0f}" r="3"/>' for x, y in placed)
        parts.append(f'<g class="s{s} dots"><title>{escape(name)}</title>{dots}</g>')
    return _svg(parts, title, height) + legend(list(series))


def line(xs: Sequence[float], ys: Sequence[float], *, title: str, axis: str) -> str:
    """One curve from 0 up."""
    top = max(ys, default=0.0) or 1.0
    span = max(xs[-1] - xs[0], 1e-9)
    points = " ".join(
        f"{LEFT + (x - xs[0]) / span * (WIDTH - LEFT):.1f},{HEIGHT - BOTTOM - y / top * (HEIGHT - BOTTOM - TOP):.1f}"
        for x, y in zip(xs, ys, strict=True)
    )
    parts = [_baseline(), _text(LEFT - 4, TOP + 8, f"{top:.2g}", "end"), _text(LEFT - 4, HEIGHT - BOTTOM, "0", "end")]
    parts.append(f'<polyline class="s0 curve" points="{points}"/>')
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 4, f"{axis} {xs[0]:g} to {xs[-1]:g}", "middle"))
    return _svg(parts, title)


def gauge(value: float, *, title: str) -> str:
    """A bar filled to `value` (0..1)."""
    filled = 100 * min(1.0, max(0.0, value))
    return (
        f'<svg class="gauge" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f'<rect class="track" width="100" height="4"/><rect class="s0" width="{filled:.1f}" height="4"/></svg>'
    )


def legend(names: Sequence[str]) -> str:
    """Colored names below a chart."""
    items = "".join(f'<span><i class="k{s}"></i>{escape(name)}</span>' for s, name in enumerate(names))
    return f'<p class="legend">{items}</p>'


def _svg(parts: Sequence[str], title: str, height: int = HEIGHT) -> str:
    opening = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return f"{opening}{''.join(parts)}</svg>"


def _x(i: int, n: int) -> float:
    return LEFT + i / n * (WIDTH - LEFT)


def _baseline() -> str:
    return f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>'


def _percent_axis(top: float) -> list[str]:
    digits = 0 if top >= 0.05 else 1
    low, high = _text(LEFT - 6, HEIGHT - BOTTOM, "0", "end"), _text(LEFT - 6, TOP + 8, f"{top:.{digits}%}", "end")
    return [_baseline(), low, high]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
