"""Pieces of a page: the frame, tables, pictures. Everything that comes in as text is escaped here."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape

from flows.pages.style import CSS


def page(title: str, body: Sequence[str]) -> str:
    """A whole document. It holds all that it shows: no script, and nothing to fetch."""
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{CSS}</style></head>'
    )
    return f"{head}<body><main>{''.join(body)}</main></body></html>\n"


def picture(png: bytes, alt: str, caption: str = "") -> str:
    """A figure with the picture in it."""
    shown = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    data = base64.b64encode(png).decode()
    return f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}">{shown}</figure>'


def facts(rows: Mapping[str, str | None], caption: str) -> str:
    """A two-column table; rows without a value are left out."""
    cells = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows.items() if value
    )
    return f'<table class="facts"><caption>{escape(caption)}</caption><tbody>{cells}</tbody></table>'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str, *, numbers: bool = True) -> str:
    """Rows of text below column heads; the first cell of a row is its head, the others are numbers unless said so."""
    css = ' class="number"' if numbers else ""
    heads = "".join(f'<th scope="col"{css if i else ""}>{escape(name)}</th>' for i, name in enumerate(columns))
    lines = []
    for row in rows:
        cells = "".join(f"<td{css}>{escape(cell)}</td>" for cell in row[1:])
        lines.append(f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def pre(value: object) -> str:
    """Plain data as indented JSON."""
    return f"<pre>{escape(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))}</pre>"


def badge(text: str) -> str:
    """A word in a small frame, colored by what it says."""
    return f'<span class="badge {escape(text)}">{escape(text)}</span>'
