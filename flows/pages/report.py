"""The page of `rcg report`: a model over time, for a person who wants to see it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from components.metrics.intervals import wilson
from flows.gate.decisions import Decision, Entry
from flows.lineage.growth import Growth
from flows.lineage.story import Story, StoryVersion
from flows.pages import charts
from flows.pages.charts import Point
from flows.pages.lineage import section
from flows.pages.markup import badge, page, picture, table

_SECTIONS = (
    ("versions", "Versions"), ("quality", "Quality"), ("decisions", "Decisions"), ("learning", "Learning"),
    ("lineage", "Lineage"), ("collection", "Collection"),
)  # fmt: skip


def report_page(story: Story, growth: Growth | None) -> str:
    """The document."""
    made: list[tuple[str, str]] = [
        ("versions", _versions(story)),
        ("quality", _quality(story)),
        ("decisions", _decisions(story)),
        ("learning", _learning(story)),
        ("lineage", f"<p>{_LINEAGE.format(escape(story.shown.name))}</p>{section(story.shown.stages)}"),
        ("collection", _collection(growth)),
    ]
    named = dict(_SECTIONS)
    parts = [(key, named[key], body) for key, body in made if body]
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in parts)
    body = [_hero(story, links)]
    body += [
        f'<section aria-labelledby="{key}"><h2 id="{key}">{name}</h2>{text}</section>' for key, name, text in parts
    ]
    notes = "".join(f"<p>{escape(note)}</p>" for note in story.notes)
    body.append(
        f"<footer>{notes}<p>This page holds everything that it shows and asks no network for anything.</p></footer>"
    )
    return page(f"{story.model}: {story.shown.name}", body)


_MOST_VERSIONS, _MOST_DECISIONS = 12, 8
_LINEAGE = "What {} was made from. A box opens what is known of that artifact; its digest names its bytes."
_FLOOR = "The dashed line is what real training pictures score in the same measurement: nothing honest goes far below."


def _hero(story: Story, links: str) -> str:
    shown = story.shown
    champion = "champion" in shown.aliases
    title = f"{shown.name[0].upper()}{shown.name[1:]}{' is the champion' if champion else ''}"
    image = picture(shown.grid, f"Pictures drawn by {shown.name}", "None of these exists.") if shown.grid else ""
    text = f'<p class="eyebrow">Model {escape(story.model)}</p><h1>{escape(title)}</h1>'
    text += f'<p class="lead">{escape(_lead(shown))}</p><nav aria-label="Sections">{links}</nav>'
    return f'<header class="hero"><div>{text}</div>{image}</header>'


def _lead(version: StoryVersion) -> str:
    m = version.metrics
    said = [f"It learned from {version.n_pictures:,} pictures and was made on {_day(version.made_ms)}."]
    if {"precision", "recall"} <= m.keys():
        said.append(
            f"{m['precision']:.0%} of what it draws passes for real, and its pictures cover {m['recall']:.0%} of the "
            "real ones’ variety."
        )
    if {"fd", "fd_floor"} <= m.keys():
        said.append(f"Its Fréchet distance is {m['fd']:.3g}; training pictures score {m['fd_floor']:.3g}.")
    return " ".join(said)


def _versions(story: Story) -> str:
    """Pictures by version, newest first."""
    items = []
    recent = [v for v in story.versions[-_MOST_VERSIONS:] if v is not story.shown] + [story.shown]
    for version in sorted(recent, key=story.versions.index, reverse=True):
        image = picture(version.grid, f"Pictures drawn by {version.name}") if version.grid else ""
        gone = "" if version.grid else '<p class="soft">Its pictures have left the store.</p>'
        badges = "".join(badge(alias) for alias in version.aliases)
        m = version.metrics
        numbers = " · ".join(
            f"<span>{text}</span>"
            for name, text in (
                ("fd", f"Fréchet distance {m.get('fd', 0):.3g}"),
                ("precision", f"precision {m.get('precision', 0):.0%}"),
                ("recall", f"recall {m.get('recall', 0):.0%}"),
            )
            if name in m
        )
        when = f"{_day(version.made_ms)}, {version.n_pictures:,} pictures"
        items.append(
            f"<li>{image}{gone}<h3>{escape(version.name)} {badges}</h3><p>{numbers}</p>"
            f'<p class="soft">{escape(when)}</p></li>'
        )
    hidden = len(story.versions) - len(recent)
    more = f'<p class="soft">{hidden} earlier version(s) are in the table below.</p>' if hidden else ""
    return f'<ul class="versions">{"".join(items)}</ul>{more}'


def _quality(story: Story) -> str:
    measured = [version for version in story.versions if {"fd", "precision", "recall"} <= version.metrics.keys()]
    if not measured:
        return ""
    panels = [_distance_panel(measured), _share_panel(measured), _copies_panel(measured)]
    rows = [
        [v.name, *(_cell(v, name) for name in ("fd", "precision", "recall", "memorization_share"))] for v in measured
    ]
    columns = ("Version", "Fréchet distance", "Precision", "Recall", "Suspiciously close")
    note = (
        "Every version was measured by an evaluation of its own, so small differences between versions mean little: "
        "what counts for a promotion is the comparison on equal terms, below. Bars are 95% intervals"
        f"{'; the ring is the champion' if 'champion' in story.shown.aliases else ''}."
    )
    listing = table(columns, rows, "All versions, with 95% intervals")
    return f'<p>{note}</p><div class="panels">{"".join(panels)}</div>{listing}'


def _interval(version: StoryVersion, name: str) -> tuple[float, float, float]:
    """(value, low, high). Of a distance by bootstrap, as evaluated; of a share by Wilson's formula."""
    m = version.metrics
    if name == "fd":
        return m["fd"], m.get("fd_low", m["fd"]), m.get("fd_high", m["fd"])
    n = m.get("n_held_out" if name == "recall" else "n_generated", 0)
    return (m[name], *wilson(m[name], n))


def _cell(version: StoryVersion, name: str) -> str:
    if name not in version.metrics:
        return "–"
    value, low, high = _interval(version, name)
    if name == "fd":
        return f"{value:.3g} ({low:.3g} – {high:.3g})"
    return f"{value:.1%} ({low:.1%} – {high:.1%})"


def _points(versions: Sequence[StoryVersion], name: str) -> list[Point]:
    """One point per version that has the number."""
    found = [v for v in versions if name in v.metrics]
    return [Point(v.short, *_interval(v, name), css="champion" if "champion" in v.aliases else "") for v in found]


def _distance_panel(versions: Sequence[StoryVersion]) -> str:
    floor = versions[-1].metrics.get("fd_floor")
    chart = charts.over_versions({"fd": _points(versions, "fd")}, title="Fréchet distance by version", floor=floor)
    text = "How far the drawn pictures as a whole are from real ones that no model has seen. Lower is better. "
    return _panel("Fréchet distance", text + (_FLOOR if floor is not None else ""), chart)


def _share_panel(versions: Sequence[StoryVersion]) -> str:
    series = {name: _points(versions, name) for name in ("precision", "recall")}
    chart = charts.over_versions(series, title="Precision and recall by version", percent=True)
    text = "Precision: the share of drawn pictures that pass for real. Recall: how much of the real variety they cover."
    return _panel("Precision and recall", text, chart + charts.legend(list(series)))


def _copies_panel(versions: Sequence[StoryVersion]) -> str:
    points = _points(versions, "memorization_share")
    if not points:
        return ""
    expected = versions[-1].metrics.get("memorization_expected")
    chart = charts.over_versions(
        {"share": points}, title="Share of near copies by version", floor=expected, percent=True
    )
    text = "The share of drawn pictures that lie suspiciously close to a training picture. The dashed line is what new "
    return _panel("Are they copies?", f"{text}real pictures score; far more than that would be copying.", chart)


def _panel(heading: str, text: str, chart: str) -> str:
    return f'<div class="panel"><h3>{escape(heading)}</h3><p class="soft">{escape(text)}</p>{chart}</div>'


def _decisions(story: Story) -> str:
    """Newest first, by number: clocks of several machines decide nothing here."""
    items = [((d.number, 0), _decided(d)) for d in story.decisions]
    items += [((e.decision, e.number), _rolled(e)) for e in story.entries if e.action == "rollback"]
    if not items:
        return "<p>Nothing was decided yet. <code>rcg promote</code> lets the gate judge the challenger.</p>"
    told = [text for _, text in sorted(items, reverse=True)]
    recent, earlier = told[:_MOST_DECISIONS], told[_MOST_DECISIONS:]
    text = f'<ol class="log">{"".join(recent)}</ol>'
    if not earlier:
        return text
    summary = f"<summary>{len(earlier)} earlier</summary>"
    return f'{text}<details>{summary}<ol class="log">{"".join(earlier)}</ol></details>'


def _decided(decision: Decision) -> str:
    against = "the first model of all" if decision.champion is None else f"against version {decision.champion.version}"
    checks = "".join(
        f'<li class="{"passed" if check.passed else "failed"}"><b>{escape(check.name)}</b>: {escape(check.text)}</li>'
        for check in decision.checks
    )
    intervals = "".join(
        f"<figure>{charts.difference(i.value, i.low, i.high, i.limit, title=_spoken_difference(name))}"
        f"<figcaption>{escape(_spoken_difference(name))}: {_signed(i.value)} "
        f"({_signed(i.low)} to {_signed(i.high)}), {i.n_real:,} real pictures</figcaption></figure>"
        for name, i in decision.differences.items()
    )
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in decision.notes)
    return (
        f'<li class="{decision.verdict}"><h3>Version {decision.challenger.version} {badge(decision.verdict)}</h3>'
        f'<p class="soft">{escape(against)} · {_day(decision.time_ms)} · {escape(decision.who)}</p>'
        f'<div class="verdict"><div><ul>{checks}</ul>{notes}</div><div>{intervals}</div></div></li>'
    )


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def _spoken_difference(name: str) -> str:
    of = {"all": "all held-out pictures", "known": "held-out pictures that both may know"}.get(name, name)
    return f"Fréchet distance, challenger less champion, on {of}"


def _rolled(entry: Entry) -> str:
    left = f" from version {entry.before}" if entry.before is not None else ""
    return (
        f"<li><h3>Version {entry.version} {badge('champion')} again</h3>"
        f'<p class="soft">rolled back{left} · {_day(entry.time_ms)} · {escape(entry.who)}</p></li>'
    )


def _learning(story: Story) -> str:
    rival = story.rival
    panels = []
    for stage, what in (("pixels", "The pixel generator"), ("rdm", "The representation generator")):
        series = {v.name: v.curves[stage] for v in (story.shown, rival) if v is not None and v.curves.get(stage)}
        if series:
            chart = charts.curves(series, title=f"Training loss of {stage}") + charts.legend(list(series))
            panels.append(_panel(what, f"Training loss of {stage} over its steps.", chart))
    return f'<div class="panels">{"".join(panels)}</div>' if panels else ""


def _collection(growth: Growth | None) -> str:
    if growth is None:
        return ""
    new = [name for name in growth.counts if name not in growth.base]
    total, later = sum(growth.counts.values()), sum(growth.counts[name] for name in new)
    text = f"{total:,} pictures in {len(growth.counts)} chunk(s)"
    text += f", {later:,} of them since encoder and codec were fitted." if new else ", all known to encoder and codec."
    chart = charts.bars(growth.counts, title="Pictures by chunk", new=new)
    panels = [_panel("How it grew", "Pictures in each chunk, in the order in which they came.", chart)]
    if growth.drift:
        about = (
            "How far the newer pictures are from the first ones in the eyes of the encoder, as a multiple of how far "
            "the first ones are from each other. About 1: nothing has changed."
        )
        panels.append(_panel("Drift", about, charts.bars(growth.drift, title="Drift by chunk", new=new)))
    body = f'<p>{text}</p><div class="panels">{"".join(panels)}</div>'
    if not growth.clusters:
        return body
    shown = "".join(
        f"<li>{picture(c.png, f'Pictures of cluster {i + 1}', f'{c.count:,} pictures')}</li>"
        for i, c in enumerate(growth.clusters)
    )
    newest = escape(list(growth.counts)[-1])
    heading = f"<h3>The newest chunk, {newest}, by likeness</h3><p>Real pictures, grouped as the encoder sees them.</p>"
    return f'{body}<div class="clusters">{heading}<ul class="versions">{shown}</ul></div>'


def _day(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{moment.day} {moment:%B %Y}"
