"""Findings of an evaluation as pictures, plots and panels: what a person looks at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from components.base import Metrics
from components.images.pictures import grid, png_bytes, rows_grid
from components.metrics import svg
from components.metrics.histogram import class_counts
from components.metrics.measure import Vectors, project
from components.metrics.memorization import Memorization
from components.metrics.report import Panel

Records = list[dict[str, object]]
Load = Callable[[np.ndarray], np.ndarray]
"""Indices (n,) -> images (n, px, px, 3) uint8."""

N_GRID, N_PAIRS, N_NEIGHBORS, N_BINS, N_DOTS = 100, 16, 12, 40, 500
SETS = ("drawn", "real, held out")


@dataclass(frozen=True)
class Pictures:
    """PNG bytes of each picture."""

    generated: bytes
    real: bytes
    closest: bytes
    neighbors: bytes


def pictures(
    generated: Load, held_out: Load, train: Load, *, sizes: tuple[int, int], copies: Memorization, seed: int
) -> Pictures:
    """Drawn and held-out grids, the pairs most alike, and random drawn images above their nearest training images.

    `sizes` are the numbers of generated and held-out images.
    """
    choose = np.random.default_rng(seed)
    n_generated, n_held_out = sizes
    closest = copies.closest(N_PAIRS)
    some = np.sort(choose.permutation(n_generated)[:N_NEIGHBORS])
    rows = [generated(some)] + [train(copies.neighbor[some, j]) for j in range(copies.neighbor.shape[1])]
    return Pictures(
        generated=png_bytes(grid(generated(np.arange(min(N_GRID, n_generated))))),
        real=png_bytes(grid(held_out(np.sort(choose.permutation(n_held_out)[:N_GRID])))),
        closest=png_bytes(rows_grid([generated(closest), train(copies.neighbor[closest, 0])], folds=2)),
        neighbors=png_bytes(rows_grid(rows)),
    )


def described(conditions: Sequence[str], representations: str | None) -> str:
    """What the generator was conditioned on, in words."""
    source = "of real held-out pictures" if representations == "oracle" else "dreamed up by a second model"
    words = {"representation": f"from representations {source}", "class": "told a class", "cluster": "told a cluster"}
    return " and ".join(words[kind] for kind in conditions) or "told nothing"


def notes(task: str, split: str, metrics: Metrics) -> list[str]:
    """How to read the numbers."""
    learned = (
        "to name the labels of" if task == "labels" else "to tell how pictures were turned and to redraw them, from"
    )
    return [
        f"Distances are taken between features of a small convolutional network that learned {learned} the "
        f"{metrics['n_train']:,.0f} training pictures. It is not the encoder that conditions the generator, "
        "which would flatter its own pictures.",
        f"Everything is compared with the {metrics['n_held_out']:,.0f} pictures of the {split} split. "
        "A representation can identify its training picture, so a distance to the training set would reward copying.",
        "The floor is what real training pictures score in the same measurement; "
        "with few held-out pictures it is well above zero, and nothing honest goes far below it.",
    ]


def class_panel(drawn: np.ndarray, real: np.ndarray, classes: Sequence[str]) -> tuple[Panel, Records]:
    """Shares of the classes, as the label network sees them. Shapes: drawn (n,), real (m,) class indices."""
    counts = [class_counts(labels, len(classes)) for labels in (drawn, real)]
    shares = {name: (c / max(1, c.sum())).tolist() for name, c in zip(SETS, counts, strict=True)}
    records: Records = [
        {"class": str(label), "set": name, "share": shares[name][i]} for name in SETS for i, label in enumerate(classes)
    ]
    chart = svg.bars([str(c) for c in classes], shares, title="Share of each class among drawn and real pictures")
    text = (
        "Which classes are drawn, as the label network names them, beside the real shares. "
        "A generator that is not class-conditional has never seen a label."
    )
    return Panel("Classes", chart, text), records


def distance_panel(copies: Memorization, heading: str, axis: str) -> tuple[Panel, Records]:
    """Histograms of the distance to the nearest training image, over common bins."""
    everything = np.concatenate([copies.distance, copies.floor])
    edges = np.linspace(0.0, float(np.quantile(everything, 0.995)) or 1.0, N_BINS + 1)
    shares = {}
    for name, values in zip(SETS, (copies.distance, copies.floor), strict=True):
        counted, _ = np.histogram(values.clip(max=edges[-1]), edges)
        shares[name] = (counted / len(values)).tolist()
    records: Records = [
        {"distance": float(edges[i]), "set": name, "share": shares[name][i]} for name in SETS for i in range(N_BINS)
    ]
    chart = svg.histogram(edges.tolist(), shares, title=heading, axis=axis)
    text = (
        "How far each picture is from its nearest training picture. "
        "If the model copied, its curve would lie left of the real one. "
        f"Only {copies.percentile:g}% of real pictures are closer than {copies.threshold:.3g}."
    )
    return Panel(heading, chart, text), records


def representation_panel(z: Vectors, seed: int) -> tuple[Panel, Records]:
    """Drawn and held-out representations in the first two principal axes of the training representations."""
    plane, share = project(z, 2)
    choose = np.random.default_rng(seed)
    sets = dict(zip(SETS, (plane.generated, plane.held_out), strict=True))
    shown = {name: points[choose.permutation(len(points))[:N_DOTS]] for name, points in sets.items()}
    records: Records = [{"x": float(x), "y": float(y), "set": name} for name, p in shown.items() for x, y in p]
    chart = svg.scatter(shown, title="Drawn and real representations in two principal axes")
    text = (
        f"Representations in the two directions that vary most in training ({share:.0%} of the variance). "
        "The two clouds should cover the same ground."
    )
    return Panel("Representations", chart, text), records


def curve_panel(curve: Sequence[dict[str, float]], task: str, accuracy: float | None) -> Panel:
    """How the feature network learned."""
    chart = svg.line([c["step"] for c in curve], [c["loss"] for c in curve], title="Training loss", axis="step")
    known = f" On held-out pictures it names {accuracy:.1%} correctly." if accuracy is not None else ""
    named = "to name the labels" if task == "labels" else "to tell how pictures were turned and to redraw them"
    return Panel(
        "The ruler",
        chart,
        f"Loss of the network whose features were compared; it learned {named}, from training pictures.{known}",
    )
