"""The page of `rcg report`: a model over time, for a person who wants to see it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.metrics.intervals import wilson
from components.pages import charts
from components.pages.charts import Point
from components.pages.page import render
from components.pages.svg import Drawing
from flows.gate.decisions import Decision, Entry, Interval
from flows.lineage.growth import Growth
from flows.lineage.story import Story, StoryVersion
from flows.pages.lineage import describe, graph_of

_TEMPLATE = Path(__file__).with_suffix(".html")
_MOST_VERSIONS, _MOST_EVENTS = 12, 8


def report_page(story: Story, growth: Growth | None) -> str:
    """The document."""
    recent = [v for v in story.versions[-_MOST_VERSIONS:] if v is not story.shown] + [story.shown]
    return render(
        _TEMPLATE,
        title=f"{story.model}: {story.shown.name}",
        story=story,
        recent=sorted(recent, key=story.versions.index, reverse=True),
        n_earlier=len(story.versions) - len(recent),
        quality=_quality(story.versions),
        events=_events(story),
        most_events=_MOST_EVENTS,
        learning=list(_learning(story)),
        graph=graph_of(story.shown.stages),
        known=[describe(name, facts) for name, facts in story.shown.stages.items()],
        growth=growth,
        chunks=growth and charts.bars({"": growth.counts}, title="Pictures by chunk", marked=growth.later),
        drift=growth and growth.drift and charts.bars({"": growth.drift}, title="Drift by chunk", marked=growth.later),
    )


@dataclass(frozen=True)
class Quality:
    """Versions by their numbers."""

    distance: Drawing
    has_floor: bool
    shares: Drawing
    copies: Drawing | None
    rows: Sequence[Sequence[str]]


def _quality(versions: Sequence[StoryVersion]) -> Quality | None:
    """None when no version was measured by a judge that sees."""
    measured = [
        version
        for version in versions
        if {"fd", "precision", "recall"} <= version.metrics.keys() and not version.metrics.get("judge_blind")
    ]
    if not measured:
        return None
    last, columns = measured[-1].metrics, ("fd", "precision", "recall", "memorization_share")
    points = {name: _points(measured, name) for name in columns}
    distance = charts.intervals({"": points["fd"]}, title="Fréchet distance by version", floor=last.get("fd_floor"))
    both = {name: points[name] for name in ("precision", "recall")}
    shares = charts.intervals(both, title="Precision and recall by version", percent=True)
    near, expected = {"": points["memorization_share"]}, last.get("memorization_expected")
    copies = charts.intervals(near, title="Share of near copies by version", floor=expected, percent=True)
    rows = [[version.name, *(_cell(version, name) for name in columns)] for version in measured]
    return Quality(distance, "fd_floor" in last, shares, copies if near[""] else None, rows)


def _interval(version: StoryVersion, name: str) -> tuple[float, float, float]:
    """(value, low, high). Of a distance by bootstrap, as evaluated; of a share by Wilson's formula."""
    m = version.metrics
    if name == "fd":
        return m["fd"], m.get("fd_low", m["fd"]), m.get("fd_high", m["fd"])
    return (m[name], *wilson(m[name], m.get("n_held_out" if name == "recall" else "n_generated", 0)))


def _cell(version: StoryVersion, name: str) -> str:
    if name not in version.metrics:
        return "–"
    value, low, high = _interval(version, name)
    if name == "fd":
        return f"{value:.3g} ({low:.3g} – {high:.3g})"
    return f"{value:.1%} ({low:.1%} – {high:.1%})"


def _points(versions: Sequence[StoryVersion], name: str) -> list[Point]:
    """One point per version that has the number; the champion is marked."""
    return [Point(v.short, *_interval(v, name), marked="champion" in v.aliases) for v in versions if name in v.metrics]


@dataclass(frozen=True)
class Event:
    """A decision of the gate, or a rollback."""

    decision: Decision | None = None
    entry: Entry | None = None
    differences: Sequence[tuple[str, Drawing, Interval]] = field(default_factory=list)


def _events(story: Story) -> list[Event]:
    """Newest first, by number: clocks of several machines decide nothing here."""
    items = [((d.number, 0), Event(decision=d, differences=list(_differences(d)))) for d in story.decisions]
    items += [((e.decision, e.number), Event(entry=e)) for e in story.entries if e.action == "rollback"]
    return [event for _, event in sorted(items, key=lambda item: item[0], reverse=True)]


def _differences(decision: Decision) -> Iterator[tuple[str, Drawing, Interval]]:
    parts = {"all": "all held-out pictures", "known": "held-out pictures that both may know"}
    for part, d in decision.differences.items():
        name = f"Fréchet distance, challenger less champion, on {parts.get(part, part)}"
        yield name, charts.difference(d.value, d.low, d.high, d.limit, title=name), d


def _learning(story: Story) -> Iterator[tuple[str, str, Drawing]]:
    """(heading, stage, curves of the shown version and its rival)."""
    for stage, what in (("pixels", "The pixel generator"), ("rdm", "The representation generator")):
        series = {v.name: v.curves[stage] for v in (story.shown, story.rival) if v is not None and v.curves.get(stage)}
        chart = charts.lines(series, title=f"Training loss of {stage}")
        if chart is not None:
            yield what, stage, chart
