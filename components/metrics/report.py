"""report.html: one self-contained page about a set of generated images. It opens offline and asks for nothing."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from components.base import Metrics
from components.metrics.report_style import CSS
from components.metrics.svg import gauge

_COPIES = (
    "The drawn pictures that lie closest to a training picture, each above that training picture. "
    "A pair that is the same picture twice would be a copy; a pair that shares only its subject is not."
)
_NEIGHBORS = "And pictures taken at random: the top row is drawn, the rows below are their nearest training pictures."


@dataclass(frozen=True)
class Figure:
    """A picture (PNG bytes) and what it shows."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Panel:
    """A chart (trusted markup of components.metrics.svg) with a heading and a sentence."""

    heading: str
    chart: str
    text: str


@dataclass(frozen=True)
class Page:
    """Everything on the page, as plain text, numbers and pictures; it is escaped here."""

    title: str
    lead: str
    metrics: Metrics
    generated: Figure
    real: Figure
    closest: Figure
    neighbors: Figure
    panels: Sequence[Panel]
    params: Mapping[str, object]
    parents: Mapping[str, str]
    notes: Sequence[str]


def build(page: Page) -> str:
    """The page as HTML text; equal content gives equal text."""
    numbers = {name: f"{value:.6g}" for name, value in sorted(page.metrics.items())}
    body = [
        f'<h1>{escape(page.title)}</h1><p class="soft">{escape(page.lead)}</p>',
        f'<div class="pair">{_figure(page.generated)}{_figure(page.real)}</div>',
        f"<h2>How good are they?</h2><p>{escape(verdict(page.metrics))}</p>",
        f'<div class="cards">{"".join(map(_card, cards(page.metrics)))}</div>',
        f"<h2>Are they copies?</h2><p>{_COPIES}</p>{_figure(page.closest, 'strip')}",
        f"<p>{_NEIGHBORS}</p>{_figure(page.neighbors, 'strip')}",
        f'<h2>A closer look</h2><div class="two">{"".join(map(_panel, page.panels))}</div>',
        "<h2>How this was measured</h2>",
        *(f"<p>{escape(note)}</p>" for note in page.notes),
        _details("All numbers", _table(numbers)),
        _details("Options used", f"<pre>{escape(json.dumps(page.params, indent=2, sort_keys=True))}</pre>"),
        _details("Made from (content digests)", _table(page.parents, "hash")),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(page.title)}</title><style>{CSS}</style></head>"
    )
    return f"{head}<body><main>{''.join(body)}</main></body></html>\n"


def verdict(m: Metrics) -> str:
    """The numbers in a few words that a person can repeat."""
    return (
        "Measured against real pictures that no model has seen, the drawn ones are "
        f"{m['fd_ratio']:.1f} times as far away as the training pictures are. "
        f"{m['precision']:.0%} of them pass for real, and they cover {m['recall']:.0%} of the real ones' variety. "
        f"{m['memorization_share']:.1%} lie suspiciously close to a training picture; "
        f"of new real pictures it would be {m['memorization_expected']:.0%}."
    )


@dataclass(frozen=True)
class Card:
    """One headline number, what real pictures score, and what it means. `share` (0..1) draws a bar."""

    name: str
    value: str
    real: str
    text: str
    share: float | None = None


def cards(m: Metrics) -> list[Card]:
    """The headline numbers that this evaluation has."""
    found = [
        Card(
            "Fréchet distance",
            f"{m['fd']:.3g}",
            f"training pictures {m['fd_floor']:.3g}",
            "How far the drawn pictures as a whole are from real ones never seen in training; lower is better. "
            f"The training pictures mark the floor. 95% interval: {m['fd_low']:.3g} to {m['fd_high']:.3g}.",
        ),
        Card(
            "Precision",
            f"{m['precision']:.0%}",
            f"training pictures {m['precision_real']:.0%}",
            "Share of drawn pictures that lie among the real ones. Do they look right?",
            m["precision"],
        ),
        Card(
            "Recall",
            f"{m['recall']:.0%}",
            f"training pictures {m['recall_real']:.0%}",
            "Share of real pictures that lie among the drawn ones. Is nothing left out?",
            m["recall"],
        ),
        Card(
            "Suspiciously close",
            f"{m['memorization_share']:.1%}",
            f"new real pictures {m['memorization_expected']:.0%}",
            "Share of drawn pictures closer to a training picture than nearly all new real ones are. "
            f"Far more than these would mean copying. By pixels: {m['memorization_share_pixels']:.1%}.",
            m["memorization_share"],
        ),
    ]
    return found + _class_cards(m) + _representation_cards(m)


def _class_cards(m: Metrics) -> list[Card]:
    if "inception_score" not in m:
        return []
    evenness = m["class_entropy"] / m["class_entropy_real"] if m["class_entropy_real"] > 0 else 1.0
    return [
        Card(
            "Classes, how evenly",
            f"{m['class_entropy']:.2f}",
            f"real pictures {m['class_entropy_real']:.2f} nats",
            f"Entropy of the classes drawn. Divergence from the real shares: {m['class_kl']:.3f} nats.",
            evenness,
        ),
        Card(
            "Inception score",
            f"{m['inception_score']:.2f}",
            f"real pictures {m['inception_score_real']:.2f}",
            "Clear and varied at once, by this page's own classifier. 1 is a blur; the number of classes is the best.",
        ),
    ]


def _representation_cards(m: Metrics) -> list[Card]:
    found = []
    if "representation_fd" in m:
        text = "Fréchet distance of the representations that the pictures were drawn from, before there is any pixel."
        real = f"training pictures {m['representation_fd_floor']:.3g}"
        found.append(Card("Representations alone", f"{m['representation_fd']:.3g}", real, text))
    if "condition_cosine" in m:
        text = "Cosine between the representation that a picture was asked for and the one the encoder sees in it."
        real = f"by chance {m['condition_cosine_shuffled']:.2f}"
        found.append(
            Card("Follows its representation", f"{m['condition_cosine']:.2f}", real, text, m["condition_cosine"])
        )
    return found


def _card(card: Card) -> str:
    bar = gauge(card.share, title=f"{card.name}: {card.value}") if card.share is not None else ""
    value = f'<div class="value">{escape(card.value)}</div><div class="real">{escape(card.real)}</div>'
    return f'<div class="card"><h3>{escape(card.name)}</h3>{value}{bar}<p>{escape(card.text)}</p></div>'


def _figure(figure: Figure, css: str = "") -> str:
    data = base64.b64encode(figure.png).decode()
    caption = escape(figure.caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f'<figure class="{css}">{image}<figcaption>{caption}</figcaption></figure>'


def _panel(panel: Panel) -> str:
    text = f'<p class="soft">{escape(panel.text)}</p>'
    return f'<div class="panel"><h3>{escape(panel.heading)}</h3>{panel.chart}{text}</div>'


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _table(rows: Mapping[str, str], css: str = "") -> str:
    cells = "".join(f'<tr><td>{escape(k)}</td><td class="{css}">{escape(v)}</td></tr>' for k, v in rows.items())
    return f"<table>{cells}</table>"
