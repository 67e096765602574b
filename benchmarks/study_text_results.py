"""docs/results/text.md of `make study-text`: the table, the claims, and the curves by steps."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.study_rows import Claim, Point, Rows, claims_table, measured, paragraph, save_figure, table, title

COLUMNS = {
    "digit and ink": "both",
    "digit": "digit",
    "ink": "ink",
    "FD": "fd",
    "cosine": "cosine",
    "diversity": "diversity",
    "cosine at the start": "start",
    "captioned": "captioned",
}


MANY = "k = 16"
"""The prior of fewer captions, as there may be fewer rows than Gaussians else."""


def claims(rows: Rows) -> list[Claim]:
    made: list[Claim] = []
    for steps in (1, 4, 8):
        for name in (MANY, "k = 128"):
            for metric, better in (("both", 1), ("fd", -1)):
                theirs, one = rows.value((name, steps), metric), rows.value(("k = 1", steps), metric)
                what = "digit and ink" if metric == "both" else "FD"
                text = f"(a) {what} at {steps} step{'s'[: steps > 1]}: {name} better than k = 1"
                made.append((text, f"{theirs:.3g} and {one:.3g}", better * (theirs - one) > 0))
    every = rows.value((MANY, 8), "both")
    for text, name, least in (
        ("(b) 5 % of captions reach 85 % of all", f"{MANY}, 5 % captioned", 0.85),
        ("(c) language-free reaches 80 %", f"{MANY}, language-free", 0.8),
    ):
        share = rows.value((name, 8), "both") / max(every, 1e-9)
        made.append((text, f"{share:.0%}", share >= least))
    starts = {name: rows.value((name, 8), "start") for name in ("N(0, I)", "k = 1", MANY, "k = 128")}
    told = ", ".join(f"{name}: {start:.2f}" for name, start in starts.items())
    least = min(starts[MANY], starts["k = 128"])
    return [*made, ("(d) cosine(z_T, z_0) is clearly above 0 (0.1) for k > 1", told, least > 0.1)]


def write_page(rows: Rows, real: Mapping[str, float], budget: Mapping[str, int], out: Path, *, minutes: float) -> Path:
    """Write text.md and text-steps.png."""
    _plot(rows, real, out / "text-steps.png")
    trained, metrics = ", ".join(f"{stage} {steps:,}" for stage, steps in budget.items()), tuple(COLUMNS.values())
    ceiling = ["real pictures", "", *(f"{real[m]:.3g}" if m in real else "" for m in metrics)]
    floor = ["real pictures of other captions", "", f"{real['unrelated']:.3g}", *[""] * (len(metrics) - 1)]
    lines = [
        *title("Priors of text on captioned digits", "make study-text", rows.seeds),
        "",
        *paragraph(
            f"One network (preset digits-text) and one budget for all priors (training steps: {trained}); no guidance. "
            "Samples are of the captions of held-out pictures. Two linear probes that saw real training pictures alone "
            "say which digit it is, whatever its color, and which ink, whatever its form. All numbers are in "
            "[text.json](text.json)."
        ),
        *claims_table(claims(rows)),
        "",
        "![Attributes and Fréchet distance by steps](text-steps.png)",
        "",
        *table(("prior", "steps", *COLUMNS), [*(_line(rows, point) for point in rows.points), ceiling, floor]),
        "",
        *paragraph(
            "FD: of representations, to those of the held-out pictures. Cosine: to the representation of the picture "
            "that the caption is of; it rewards the mean. Diversity: 1 - cosine of two samples of one caption. Cosine "
            "at the start: of z_T to that representation. Own representation: of the held-out pictures themselves, "
            "painted. Fewer captions: of k = 16 Gaussians, in 8 steps, on the captioned pictures "
            "alone. Language-free: the pixel generator is trained on other pictures, with 5 % of captions, which it "
            "does not read. Not measured: k = 1024, as there are fewer training pictures."
        ),
        "![Prompts](text-prompts.png)",
        "",
        "Each prompt below a held-out picture of it and three paintings each of k = 1, 16, 128 and the projection.",
        "",
        measured(minutes),
    ]
    path = out / "text.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def _line(rows: Rows, point: Point) -> list[str]:
    name, steps = point
    return [name, "none" if steps is None else str(steps), *rows.cells(point, tuple(COLUMNS.values()))]


def _plot(rows: Rows, real: Mapping[str, float], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), dpi=110, layout="constrained")
    ticks = sorted({steps for _, steps in rows.points if steps is not None})
    for axes, metric, name in zip(figure.subplots(1, 2), ("both", "fd"), ("digit and ink right", "FD"), strict=True):
        for prior in dict.fromkeys(name for name, _ in rows.points):
            steps = [steps for its, steps in rows.points if its == prior and steps is not None]
            if len(steps) > 1:
                values = [rows.value((prior, n), metric) for n in steps]
                axes.plot(steps, values, "o-", markersize=4, label=prior)
        if (value := rows.mean(("projection", None), metric)) is not None:
            axes.axhline(value, color="#555555", linestyle=":", label="projection")
        axes.axhline(real[metric], color="#999999", linestyle="--", label="real")
        axes.set(xscale="log", yscale="log" if metric == "fd" else "linear", xlabel="steps", ylabel=name)
        axes.set_xticks(ticks, map(str, ticks))
        axes.set_xticks([], minor=True)
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
