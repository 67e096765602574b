"""Text on its way to a person: without secrets, and without what a terminal would obey instead of show."""

import re

_USER = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^\s/?#'\"@:]*(?::(?!\d+(?:[/\s?#]|$))[^\s'\"@]*|[^\s/?#'\"@]*)"
    r"(?:@[^\s/?#'\"@]*)*)@",
    re.IGNORECASE,
)
_QUERY = re.compile(
    r"([?&;][\w.-]*(?:passw|secret|token|signature|credential|access_?key|api_?key|\bsig\b)[\w.-]*=)[^&\s'\"#]+",
    re.IGNORECASE,
)
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def redacted(text: str) -> str:
    """The text with *** for the user and password of every URI in it, and for the secrets in its query."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1***", _USER.sub(_without_user, text))


def _without_user(found: re.Match[str]) -> str:
    """The name alone is an account's in ssh://git@host, and often a token in https://."""
    shown = "ssh" in found["scheme"].lower() and ":" not in found["user"]
    return found[0] if shown else f"{found['scheme']}://***@"


def printable(text: str) -> str:
    r"""The text with \u001b and the like for control characters (but new lines and tabs), turns of the direction of
    writing, and halves of characters. Inside JSON it stays the same text.
    """
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    r"""Printable, with \n for new lines: text of others that must not look like a line of ours."""
    return printable(text).replace("\n", "\\n")
