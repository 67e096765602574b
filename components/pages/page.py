"""Pages from Jinja templates that stand beside their callers; frame.html, parts.html and the style sheets are shared.

A page is one file that holds all that it shows: no script, and nothing to fetch.
"""

import base64
import json
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_HERE = Path(__file__).parent


def render(template: Path, **values: object) -> str:
    """The page that a template makes of values; equal values give equal text.

    Every value is escaped, but for those that are markup by type: charts, and what macros made.
    """
    return _environment(template.parent).get_template(template.name).render(**values)


@lru_cache
def _environment(folder: Path) -> Environment:
    found = Environment(
        loader=FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"fmt": format, "signed": _signed, "day": _day, "indented": _indented, "base64": _base64}
    return found


def _signed(value: float) -> str:
    """Three digits with a sign that is as wide as a plus."""
    return f"{value:+.3g}".replace("-", "−")


def _day(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{moment.day} {moment:%B %Y}"


def _indented(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
