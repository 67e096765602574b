"""Results of a study as docs/results/NAME.md, a plot, a grid per arm, and the raw numbers."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

Metrics = dict[str, float]
Options = dict[str, float | str]

ORDER = ("oracle", "class", "rcg", "cluster", "unconditional")
COLUMNS = {
    "FD": "fd",
    "precision": "precision",
    "recall": "recall",
    "memorized": "memorization_share",
    "memorized (pixels)": "memorization_share_pixels",
    "class entropy": "class_entropy",
    "class KL": "class_kl",
    "inception score": "inception_score",
}


@dataclass(frozen=True)
class Result:
    """One arm with one seed, measured on the test split."""

    arm: str
    seed: int
    metrics: Metrics


@dataclass(frozen=True)
class About:
    """What a study is called, and the command that makes it."""

    name: str
    title: str
    command: str
    claims: Mapping[str, float]
    """The FD of RCG shall be at most so many times that of the arm."""


@dataclass
class Study:
    """Everything that was found."""

    about: About
    budget: str
    encoder: Metrics
    results: list[Result] = field(default_factory=list)
    chosen: dict[str, Options] = field(default_factory=dict)
    tried: dict[str, list[tuple[Options, float]]] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)

    @property
    def arms(self) -> list[str]:
        """Those that were run, the best told first."""
        return [arm for arm in ORDER if self.of(arm)]

    def of(self, arm: str) -> list[Result]:
        return [result for result in self.results if result.arm == arm]

    def mean(self, arm: str, name: str) -> float:
        return mean(result.metrics[name] for result in self.of(arm))

    def ratio(self, arm: str, other: str) -> float:
        return self.mean(arm, "fd") / self.mean(other, "fd")


def write_results(study: Study, folder: Path, *, minutes: float) -> Path:
    """Write the page and what it shows; returns its path."""
    name = study.about.name
    folder.mkdir(parents=True, exist_ok=True)
    for arm, png in study.pictures.items():
        (folder / f"{name}-{arm}.png").write_bytes(png)
    raw = {
        "encoder": study.encoder,
        "chosen": study.chosen,
        "tried": study.tried,
        "results": [{"arm": r.arm, "seed": r.seed, **r.metrics} for r in study.results],
    }
    (folder / f"{name}.json").write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n")
    _plot(study, folder / f"{name}-fd.png")
    path = folder / f"{name}.md"
    path.write_text("\n".join(_page(study, minutes)) + "\n")
    return path


def _page(study: Study, minutes: float) -> list[str]:
    one, name = study.results[0].metrics, study.about.name
    seeds = len({r.seed for r in study.results})
    floor = mean(r.metrics["fd_floor"] for r in study.results)
    return [
        f"# {study.about.title}",
        "",
        f"Written by `{study.about.command}`. One generator, {study.budget}, {seeds} seeds;",
        f"arms differ only in what the generator is told. {one['n_generated']:.0f} samples per run are",
        f"compared with the {one['n_held_out']:.0f} images of the test split,",
        "in features of a label classifier that conditions nothing and names",
        f"{one['network_accuracy']:.1%} of them correctly. Real training images score {floor:.3g}: that is the floor.",
        f"All numbers are in [{name}.json]({name}.json).",
        "",
        *_claims(study),
        "",
        f"![Frechet distance of every arm and seed]({name}-fd.png)",
        "",
        "## Every seed",
        "",
        *_table(study),
        "",
        "`memorized` is the share of samples closer to a training image than 95% of held-out images are; new real",
        "images show 0.05. Precision and recall of real training images are "
        f"{one['precision_real']:.2f} and {one['recall_real']:.2f}.",
        "",
        "## Options",
        "",
        "Chosen per arm from one grid, by the FD on the val split with seed 0:",
        "",
        *_options(study),
        "",
        "## The encoder",
        "",
        *_encoder(study.encoder),
        "",
        "## Pictures",
        "",
        *[line for arm in study.arms for line in (f"### {arm}", "", f"![{arm}]({name}-{arm}.png)", "")],
        *_where(minutes),
    ]


def _where(minutes: float) -> list[str]:
    import torch

    return [
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {platform.machine()} with {torch.get_num_threads()} threads and",
        f"torch {torch.__version__.split('+')[0]}. This run took {minutes:.0f} min; stages found in the store cost it",
        "nothing.",
    ]


def _claims(study: Study) -> list[str]:
    lines = ["| ratio of mean FD | measured | wanted | reached |", "|---|---|---|---|"]
    for other in (arm for arm in reversed(study.arms) if arm != "rcg"):
        ratio, wanted = study.ratio("rcg", other), study.about.claims.get(other)
        reached = "|" if wanted is None else f"at most {wanted} | {'yes' if ratio <= wanted else 'no'}"
        lines.append(f"| RCG / {other} | {ratio:.2f} | {reached} |")
    return lines


def _table(study: Study) -> list[str]:
    lines = [f"| arm | seed | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for arm in study.arms:
        for result in study.of(arm):
            lines.append(f"| {arm} | {result.seed} | {_cells([result])} |")
        lines.append(f"| **{arm}** | mean | {_cells(study.of(arm))} |")
    return lines


def _cells(results: Sequence[Result]) -> str:
    return " | ".join(f"{mean(r.metrics[name] for r in results):.3g}" for name in COLUMNS.values())


def _options(study: Study) -> list[str]:
    lines = ["| arm | chosen | FD on val of every point tried (sampler, guidance) |", "|---|---|---|"]
    for arm in study.arms:
        tried = ", ".join(f"{named(options)}: {fd:.3g}" for options, fd in study.tried[arm])
        lines.append(f"| {arm} | {named(study.chosen[arm])} | {tried} |")
    return lines


def named(options: Options) -> str:
    """A point of the grid in few words; eta counts for ddim alone."""
    how = f"{options['sampler']} " if "sampler" in options else ""
    eta = f"eta {options['eta']:g} " if options.get("sampler") == "ddim" else ""
    heat = f"temperature {options['temperature']:g} " if "temperature" in options else ""
    return f"{how}{eta}{heat}guidance {options['guidance']:g}"


def _encoder(metrics: Metrics) -> list[str]:
    lines = ["One encoder, trained without labels, serves all arms and seeds.", "", "| metric | value |", "|---|---|"]
    return lines + [f"| {name} | {value:.4g} |" for name, value in sorted(metrics.items())]


def _plot(study: Study, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    arms = study.arms[::-1]
    for row, arm in enumerate(arms):
        values = [result.metrics["fd"] for result in study.of(arm)]
        axes.barh(row, mean(values), color="#2f6fde" if arm == "rcg" else "#b9c0cc")
        axes.plot(values, [row] * len(values), "o", color="#1d1f23", markersize=4)
    axes.axvline(
        mean(r.metrics["fd_floor"] for r in study.results), color="#d9801a", linestyle="--", label="real images"
    )
    axes.set_yticks(range(len(arms)), arms)
    axes.set_xlabel("Frechet distance to the test split; dots are seeds")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
