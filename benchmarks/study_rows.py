"""What a study measured at its points, seed by seed; shared by the pages of text and of guidance."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from textwrap import wrap
from typing import Any

Point = tuple[Any, ...]


@dataclass(frozen=True)
class Row:
    """One point with one seed."""

    point: Point
    seed: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Rows:
    """All of them, as means over the seeds."""

    rows: Sequence[Row]

    @property
    def seeds(self) -> list[int]:
        return sorted({row.seed for row in self.rows})

    @property
    def points(self) -> list[Point]:
        return list(dict.fromkeys(row.point for row in self.rows))

    def mean(self, point: Point, metric: str) -> float | None:
        """None where it is not measured there."""
        of = [row.metrics[metric] for row in self.rows if row.point == point and metric in row.metrics]
        return mean(of) if of else None

    def value(self, point: Point, metric: str) -> float:
        """Raises: KeyError where it is not measured there."""
        if (found := self.mean(point, metric)) is None:
            raise KeyError(point, metric)
        return found

    def cells(self, point: Point, metrics: Sequence[str]) -> list[str]:
        """For a line of a table."""
        values = (self.mean(point, metric) for metric in metrics)
        return ["" if value is None else f"{value:.3g}" for value in values]

    def records(self, *names: str) -> list[dict[str, Any]]:
        """As JSON; `names` of the parts of a point."""
        return [dict(zip(names, row.point, strict=True)) | {"seed": row.seed, **row.metrics} for row in self.rows]


Claim = tuple[str, str, bool]
"""What was to be reproduced or refuted, what was found, and whether it holds."""


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """In Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def claims_table(claims: Sequence[Claim]) -> list[str]:
    return table(
        ("claim", "found", "holds"), [(text, found, "yes" if holds else "no") for text, found, holds in claims]
    )


def title(name: str, command: str, seeds: Sequence[int]) -> list[str]:
    named = f"seed{'s'[: len(seeds) > 1]} {', '.join(map(str, seeds))}"
    return [f"# {name}", "", f"Written by `{command}`, {named}."]


def paragraph(text: str) -> list[str]:
    """Its lines, and an empty one."""
    return [*wrap(text, 120), ""]


def measured(minutes: float) -> str:
    """When and where, for the foot of a page."""
    import torch

    when, torch_version = f"{datetime.now(UTC):%Y-%m-%d}", torch.__version__.split("+")[0]
    return f"Measured {when} on {platform.machine()}, torch {torch_version}, in {minutes:.0f} min beside other work."


def save_figure(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
