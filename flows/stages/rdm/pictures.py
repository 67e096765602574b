"""Pictures of what the representation generator draws. Shapes: all are (h, w, 3) uint8."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.metrics.frechet import principal_axes

_REAL, _DRAWN = "#888888", "#d1495b"


def scatter(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Held-out and generated representations along the two main axes of the held-out ones.

    Shapes: (n, dim), (m, dim).
    """
    mean, axes = principal_axes(real, 2)
    figure, plot = _figure()
    for points, color, name in ((real, _REAL, "held-out"), (drawn, _DRAWN, "generated")):
        x, y = ((points - mean) @ axes).T
        plot.scatter(x, y, s=9, c=color, alpha=0.6, linewidths=0, label=f"{name} ({len(points)})")
    plot.set(xlabel="1st principal axis", ylabel="2nd principal axis", title="Representations")
    return _drawn(figure, plot)


def occupancy(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Share of training and of generated representations that lies in each cluster of the base, the largest first.

    Shapes: (k,), (k,).
    """
    order = np.argsort(-real, kind="stable")
    figure, plot = _figure()
    places = np.arange(len(real))
    plot.bar(places, real[order], width=0.9, color=_REAL, label="training")
    plot.plot(places, drawn[order], "o", markersize=4, color=_DRAWN, label="generated")
    plot.set(xlabel="component, by frequency", ylabel="share", title="Components of the base distribution")
    return _drawn(figure, plot)


def along(curves: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Cosine of the chain's states to what they become, from the first noise to the end."""
    figure, plot = _figure()
    for color, (name, values) in zip((_DRAWN, "#2f6fde", _REAL), curves.items(), strict=False):
        plot.plot(range(len(values)), values, "o-", markersize=3, color=color, label=name)
    plot.set(xlabel="steps done", ylabel="mean cosine of z_t and z_0", title="From noise to a representation")
    return _drawn(figure, plot)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), dpi=100, layout="constrained")
    return figure, figure.add_subplot()


def _drawn(figure: Any, plot: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    plot.legend()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
