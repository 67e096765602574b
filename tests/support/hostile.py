"""Text that would become markup, or a template, if a page took it as it is."""

from html.parser import HTMLParser

HOSTILE = """<script>alert(1)</script>'"></title></style><img src=x onerror="alert(1)" {{ 7 * 7 }}>"""
"""Also its first ten characters would open an element."""
FORBIDDEN = ("script", "iframe", "object", "form")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def assert_harmless(page: str) -> None:
    """The page shows HOSTILE, and no element or attribute came of it."""
    reader = _Reader()
    reader.feed(page)
    assert not set(FORBIDDEN) & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert all((value or "").startswith("data:") for name, value in reader.attributes if name == "src")
    assert "{{ 7 * 7 }}" in page, "values are no templates"
