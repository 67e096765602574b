"""What a person sees of an evaluation: pictures, plots with the records behind them, and report.html."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.base import Metrics
from components.cache.samples import SamplesInfo
from components.images.pictures import grid, png_bytes, rows_grid
from components.metrics.advice import FIX, Advice
from components.metrics.config import Task
from components.metrics.histogram import class_shares
from components.metrics.judge import Judge
from components.metrics.measure import Vectors, plane
from components.metrics.memorization import Memorization
from components.metrics.names import MEANINGS
from components.metrics.names import shown as say
from components.pages import charts
from components.pages.page import render
from components.pages.svg import Drawing
from flows.stages.evaluate.own import Painted
from flows.stages.evaluate.params import EvaluateParams

Records = list[dict[str, object]]
Load = Callable[[np.ndarray], np.ndarray]
"""Indices (n,) -> images (n, px, px, 3) uint8."""

N_GRID, N_PAIRS, N_NEIGHBORS, N_BINS, N_DOTS = 100, 16, 12, 40, 500
SETS = ("drawn", "real, held out")
CONTROLS = {"real": "real", "generated": "drawn", "blurred": "blurred", "shuffled": "shuffled", "noise": "noise"}
_TEMPLATE = Path(__file__).with_suffix(".html")
_BY_JUDGE = (
    *("fd", "kid", "mind", "precision", "recall", "inception"),
    *("class_", "caption_", "memorization", "equivalent", "own_picture"),
)
_GAUGES = ("precision", "recall", "memorization_share", "condition_cosine", "own_picture_r5")


@dataclass(frozen=True)
class Pictures:
    """PNG bytes of each picture."""

    generated: bytes
    real: bytes
    closest: bytes
    neighbors: bytes
    own: bytes | None


def pictures(
    generated: Load,
    held_out: Load,
    train: Load,
    *,
    sizes: tuple[int, int],
    copies: Memorization,
    painted: Painted | None,
    seed: int,
) -> Pictures:
    """Drawn and held-out grids, the pairs most alike, random drawn images above their nearest training images, and
    held-out images above what is painted of their representations.

    `sizes` are the numbers of generated and held-out images.
    """
    choose = np.random.default_rng(seed)
    n_generated, n_held_out = sizes
    closest = copies.closest(N_PAIRS)
    some = np.sort(choose.permutation(n_generated)[:N_NEIGHBORS])
    real, own = np.sort(choose.permutation(n_held_out)[:N_GRID]), None
    if painted is not None:
        few = np.sort(choose.permutation(len(painted.own))[:N_NEIGHBORS])
        own = png_bytes(rows_grid([held_out(painted.own[few]), painted.images[few]]))
    rows = [generated(some)] + [train(copies.neighbor[some, j]) for j in range(copies.neighbor.shape[1])]
    return Pictures(
        generated=png_bytes(grid(generated(np.arange(min(N_GRID, n_generated))))),
        real=png_bytes(grid(held_out(real))),
        closest=png_bytes(rows_grid([generated(closest), train(copies.neighbor[closest, 0])], folds=2)),
        neighbors=png_bytes(rows_grid(rows)),
        own=own,
    )


@dataclass(frozen=True)
class Reading:
    """How the numbers are to be read."""

    judge: Judge
    blind: Sequence[str]
    """Why the judge is; its numbers are then left out."""
    advice: Advice


@dataclass(frozen=True)
class Plot:
    """A chart with a heading and a sentence, and the records that plots/NAME.json holds of it."""

    name: str
    heading: str
    text: str
    chart: Drawing | None
    records: Records


def class_plot(drawn: np.ndarray, real: np.ndarray, classes: Sequence[str]) -> Plot:
    """Shares of the classes, as the label network sees them. Shapes: drawn (n,), real (m,) class indices."""
    shares = {name: class_shares(labels, len(classes)) for name, labels in zip(SETS, (drawn, real), strict=True)}
    return Plot(
        "class_histogram",
        "Classes",
        "Which classes are drawn, as the label network names them, beside the real shares. "
        "A generator that is not class-conditional has never seen a label.",
        charts.bars(
            {name: dict(zip(classes, its, strict=True)) for name, its in shares.items()},
            title="Share of each class among drawn and real pictures",
            percent=True,
        ),
        [{"class": label, "set": name, "share": shares[name][i]} for name in SETS for i, label in enumerate(classes)],
    )


def control_plot(m: Metrics) -> Plot:
    """Where the generator stands between real pictures and pictures spoiled on purpose, in one distance."""
    found = {words: m[f"control_fd_{name}"] for name, words in CONTROLS.items()}
    return Plot(
        "controls",
        "Can the judge see?",
        f"Fréchet distance to {m['control_n']:,.0f} held-out pictures: of as many others, untouched and spoiled on "
        "purpose, and of drawn ones. A judge that sees puts noise and shuffled patches far from the real ones.",
        charts.bars({"": found}, title="Distance of real, drawn and spoiled pictures", marked=["drawn"]),
        [{"set": words, "fd": found[words]} for words in found],
    )


def distance_plot(kind: str, copies: Memorization, x_name: str) -> Plot:
    """Histograms of the distance to the nearest training image."""
    edges, *both = copies.histogram(N_BINS)
    shares, heading = dict(zip(SETS, both, strict=True)), f"Nearest training picture, by {kind}s"
    return Plot(
        f"nearest_{kind}s",
        heading,
        "How far each picture is from its nearest training picture. "
        "If the model copied, its curve would lie left of the real one. "
        f"Only {copies.percentile:g}% of real pictures are closer than {copies.threshold:.3g}.",
        charts.histogram(edges, shares, title=heading, x_name=x_name),
        [{"distance": edges[i], "set": name, "share": shares[name][i]} for name in SETS for i in range(N_BINS)],
    )


def representation_plot(z: Vectors, seed: int) -> Plot:
    """Drawn and held-out representations in the first two principal axes of the training representations."""
    *both, share = plane(z, N_DOTS, seed=seed)
    shown = dict(zip(SETS, both, strict=True))
    return Plot(
        "representations",
        "Representations",
        f"Representations in the two directions that vary most in training ({share:.0%} of the variance). "
        "The two clouds should cover the same ground.",
        charts.scatter(shown, title="Drawn and real representations in two principal axes"),
        [{"x": x, "y": y, "set": name} for name, points in shown.items() for x, y in points],
    )


def curve_plot(curve: Sequence[dict[str, float]], task: Task, accuracy: float | None) -> Plot:
    """How the feature network learned."""
    learned = "to name the labels" if task == "labels" else "to tell how pictures were turned and to redraw them"
    known = f" On held-out pictures it names {accuracy:.1%} correctly." if accuracy is not None else ""
    return Plot(
        "network_loss",
        "The ruler",
        f"Loss of the network whose features were compared; it learned {learned}, from training pictures.{known}",
        charts.lines({"": [(point["step"], point["loss"]) for point in curve]}, title="Training loss"),
        list(map(dict, curve)),
    )


def described(conditions: Sequence[str], representations: str | None) -> str:
    """What the generator was conditioned on, in words."""
    source = "of real held-out pictures" if representations == "oracle" else "dreamed up by a second model"
    words = {"representation": f"from representations {source}", "text": "told a held-out picture's caption"}
    return " and ".join(words.get(kind, f"told a {kind}") for kind in conditions) or "told nothing"


def page(
    info: SamplesInfo,
    params: EvaluateParams,
    *,
    metrics: Metrics,
    reading: Reading,
    shown: Pictures,
    plots: Sequence[Plot],
    parents: Mapping[str, str],
) -> str:
    """report.html; equal content gives equal text."""
    judge, blind = reading.judge, reading.blind
    model = info.pixels["model"]
    return render(
        _TEMPLATE,
        title=f"{info.n:,} pictures that do not exist",
        kind=model["kind"],
        told=described([one["kind"] for one in model["conditions"]], info.sampling["representations"]),
        px=info.px,
        m=metrics,
        gauges=dict(_gauges(metrics)),
        judge=judge,
        network=judge.network.identity,
        network_line=judge.network.identity.line,
        blind=blind,
        advice=reading.advice,
        meanings=MEANINGS,
        say=say,
        fix=FIX,
        controls=_control_rows(metrics),
        split=params.split,
        shown=shown,
        plots=[plot for plot in plots if not (blind and plot.name in ("class_histogram", "nearest_features"))],
        numbers={name: f"{value:.6g}" for name, value in sorted(metrics.items()) if not (blind and is_by_judge(name))},
        params={
            "sample": info.sampling,
            "evaluate": params.model_dump(mode="json"),
            "pixels": info.pixels,
            "rdm": info.rdm,
        },
        parents=dict(sorted(parents.items())),
    )


def is_by_judge(name: str) -> bool:
    """Whether a number was seen through the feature network, so that it means nothing when that is blind."""
    return name.startswith(_BY_JUDGE) and not name.endswith("_pixels") and name != "memorization_expected"


def _control_rows(m: Metrics) -> list[list[str]]:
    """Name, distance, precision, recall and P value of every control."""
    rows = []
    for name in ("real", "blurred", "shuffled", "noise"):
        p = m.get(f"control_p_distance_{name}")
        shares = (f"{m[f'control_{number}_{name}']:.0%}" for number in ("precision", "recall"))
        rows.append([CONTROLS[name], f"{m[f'control_fd_{name}']:.3g}", *shares, "–" if p is None else f"{p:.2g}"])
    return rows


def _gauges(m: Metrics) -> Iterator[tuple[str, Drawing]]:
    shares = {name: m[name] for name in _GAUGES if name in m}
    if "class_entropy" in m:
        shares["evenness"] = m["class_entropy"] / m["class_entropy_real"] if m["class_entropy_real"] > 0 else 1.0
    for name, share in shares.items():
        yield name, charts.gauge(share, title=f"{name}: {share:.1%}")
