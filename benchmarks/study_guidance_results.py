"""docs/results/guidance-pixels.md of `make study-guidance`: the table, the claims, the curves and the pictures."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from benchmarks.study_rows import Claim, Point, Rows, claims_table, measured, paragraph, save_figure, table, title

METRICS = ("agreement", "precision", "recall", "fd")
_WAYS = {"none": "", "guidance": "classifier-free", "class": "guide to the class", "text": "guide to the text"}


def _is_filling(point: Point) -> bool:
    return point[0] == "the rest" or point[1] == "repaint"


def _line(rows: Rows, told: str, way: str) -> list[Point]:
    """Points of one way, by scale, from none on."""
    return [(told, "none", 0.0), *(point for point in rows.points if point[:2] == (told, way))]


def _best(rows: Rows, told: str, way: str) -> Point:
    """The point of one way, none among them, of the least distance."""
    return min(_line(rows, told, way), key=lambda point: rows.value(point, "fd"))


def claims(rows: Rows) -> list[Claim]:
    made: list[Claim] = []
    for told, way in (("nothing", "class"), ("nothing", "text"), ("class", "class")):
        plain, best = rows.value((told, "none", 0.0), "fd"), _best(rows, told, way)
        found = f"FD {rows.value(best, 'fd'):.3g} at scale {best[2]:g}, {plain:.3g} without"
        text = f"(ADM) told {told}, {_WAYS[way]}: a moderate scale has a better FD than none"
        made.append((text, found, rows.value(best, "fd") < plain and best != _line(rows, told, way)[-1]))
    free, by_guide = _best(rows, "text", "guidance"), _best(rows, "text", "text")
    for metric, better in (("fd", -1), ("agreement", 1)):
        a, b = (rows.value(point, metric) for point in (free, by_guide))
        text = f"(GLIDE) told text, {metric}: classifier-free beats a guide by image and text, each at its best FD"
        made.append((text, f"{a:.3g} at {free[2]:g}, {b:.3g} at {by_guide[2]:g}", better * (a - b) > 0))
    for told, way in (("class", "guidance"), ("text", "guidance"), ("nothing", "class")):
        recalls = [rows.value(point, "recall") for point in _line(rows, told, way)]
        text, found = f"told {told}, {_WAYS[way]}: recall falls with the scale", ", ".join(f"{r:.2f}" for r in recalls)
        made.append((text, found, all(b < a + 0.02 for a, b in pairwise(recalls))))
    sees, repaint = (rows.value(point, "fd") for point in (("the rest", "none", 0.0), ("nothing", "repaint", 5)))
    text = "a generator that sees what is known fills better than RePaint"
    return [*made, (text, f"FD {sees:.3g}, {repaint:.3g}", sees < repaint)]


def write_page(
    rows: Rows, facts: Mapping[str, float], pictures: tuple[bytes, bytes], out: Path, *, minutes: float
) -> Path:
    """Write guidance-pixels.md, and beside it .json, -curves.png, .png and -filled.png."""
    raw = {"real": dict(facts), "rows": rows.records("told", "way", "scale")}
    (out / "guidance-pixels.json").write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n")
    for name, data in zip(("guidance-pixels.png", "guidance-pixels-filled.png"), pictures, strict=True):
        (out / name).write_bytes(data)
    _plot(rows, out / "guidance-pixels-curves.png")
    whole = [point for point in rows.points if not _is_filling(point)]
    lines = [
        *title("Ways to lead a painter of digits, and to fill a hole", "make study-guidance", rows.seeds),
        "",
        *paragraph(
            "Painters of one size and training (preset digits-text) are told nothing, a class or a caption. Guides: a "
            "classifier, and a model of images and captions, both on noisy pictures. Each captioned picture of the "
            f"test split is asked for once. The judge guided nothing and names {facts['accuracy']:.1%} of its "
            f"{facts['n_test']:.0f} pictures. As many real training pictures have precision {facts['precision']:.2f}, "
            f"recall {facts['recall']:.2f} and FD {facts['fd']:.2f}."
        ),
        *claims_table(claims(rows)),
        "",
        "![Precision against recall, and distance by agreement](guidance-pixels-curves.png)",
        "",
        *table(("told", "led by", "scale", *METRICS), [_led(rows, point) for point in whole]),
        "",
        "![The same asked of eight ways](guidance-pixels.png)",
        "",
        *paragraph(
            "Rows: nothing told; a guide to the class at 2 and at 8; class; class with guidance 2; text; text with "
            "guidance 2; text with its guide at 2."
        ),
        "## The middle filled",
        "",
        *paragraph(
            "A square of half the side is made anew, the rest is known. Agreement: with the class of the picture, of "
            "which the middle is gone."
        ),
        *table(("painter", "known pixels kept", *METRICS), [_fill(rows, p) for p in rows.points if p not in whole]),
        "",
        "![What is known, three ways to fill it, and the pictures](guidance-pixels-filled.png)",
        "",
        measured(minutes),
    ]
    path = out / "guidance-pixels.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def _led(rows: Rows, point: Point) -> list[str]:
    told, way, scale = point
    return [told, _WAYS.get(way, way), f"{scale:g}", *rows.cells(point, METRICS)]


def _fill(rows: Rows, point: Point) -> list[str]:
    blind = f"sees nothing; each step {point[2]:g} time{'s'[: point[2] > 1]}"
    name = "sees what is known" if point[0] == "the rest" else blind
    return [name, f"{rows.value(point, 'known_kept'):.0%}", *rows.cells(point, METRICS)]


def _plot(rows: Rows, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=110, layout="constrained")
    both = figure.subplots(1, 2)
    for (x, y), axes in zip((("recall", "precision"), ("agreement", "fd")), both, strict=True):
        for told, way in dict.fromkeys(point[:2] for point in rows.points if point[1] not in ("none", "repaint")):
            line = [point for point in _line(rows, told, way) if rows.mean(point, x) is not None]
            values = ([rows.value(point, metric) for point in line] for metric in (x, y))
            axes.plot(*values, "o-", markersize=3, label=f"{told}: {_WAYS.get(way, way)}")
        axes.set(xlabel=x, ylabel="FD" if y == "fd" else y)
    both[0].legend(frameon=False, fontsize=7, title="told: led by")
    save_figure(figure, path)
