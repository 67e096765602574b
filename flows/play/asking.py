"""What is filled in on the page -> a request, the same that the command line would make."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.bundle.request import Edit, Picture, Request, Upscale
from components.errors import ConfigError
from flows.lineage.sampling import open_picture

MOST = 64
"""Pictures of one request; more are for `rcg sample`."""
_LARGEST = 2**63
_SHARED = ("guidance", "rdm_guidance", "guide_scale")
_WORDS = ("class_name", "text", "like", "a", "b", "image")
_NUMBERS = ("share", "noise", *_SHARED)

_LACKING = {
    "text": ("there is no text", "write what the pictures show"),
    "like": ("there is no picture to vary", "give one"),
    "a": ("there are no pictures to lie between", "give two"),
    "image": ("there is no picture to make larger", "give one"),
}


def asked(values: Mapping[str, Any], edit: Edit | None = None, *, needs: str | None = None) -> Request:
    """The request of a form's fields by name; one that is absent or left empty is not asked for, but `needs`, which
    has to be there.

    `like`, `a`, `b` and `image` are paths of given pictures. Raises: ConfigError, DataError.
    """
    given = _given(values)
    if needs is not None and needs not in given and not (needs == "a" and "b" in given):
        what, fix = _LACKING[needs]
        raise ConfigError(what, fix=fix)
    text = (given["text"].strip(),) if "text" in given else ()
    between = _pair(given)
    like = _picture(given, "like")
    return Request(
        n=_whole(given, "n", "the number of pictures", default=1, most=MOST),
        seed=_whole(given, "seed", "the seed", default=0),
        class_name=given.get("class_name"),
        text=text,
        like=like,
        between=between,
        share=given.get("share") if between is not None or (text and like is not None) else None,
        edit=edit,
        upscale=Upscale(image=_picture(given, "image"), noise=given.get("noise")) if _is_large(given) else None,
        steps=_whole(given, "steps", "the number of steps", default=0) if "steps" in given else None,
        **{name: given[name] for name in _SHARED if name in given},
    )


def edit_of(values: Mapping[str, Any], image: Picture, mask: Picture, usual: int | None) -> Edit:
    """The edit that the fields of its tab ask for. `usual`: how often the bundle repaints. Raises: ConfigError."""
    repaint = _whole(_given(values), "repaint", "how often each step is taken", default=1)
    return Edit(image=image, mask=mask, free=bool(values.get("free")), repaint=None if repaint == usual else repaint)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is empty. Raises: ConfigError for a value of another type than its field's."""
    given = {name: value for name, value in values.items() if value not in (None, "", []) and str(value).strip()}
    for name, value in given.items():
        if name in _WORDS and not isinstance(value, str):
            raise ConfigError(f"{name} is no text", got=repr(value)[:80], expected="a text")
        if name in _NUMBERS and not _is_number(value):
            raise ConfigError(f"{name} is no number", got=repr(value)[:80], expected="a finite number")
    return given


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_large(given: Mapping[str, Any]) -> bool:
    return bool(given.get("large")) or "image" in given


def _pair(given: Mapping[str, Any]) -> tuple[Picture, Picture] | None:
    a, b = _picture(given, "a"), _picture(given, "b")
    if (a is None) != (b is None):
        got = "the first alone" if a is not None else "the second alone"
        raise ConfigError("there are two pictures to lie between", got=got, fix="give the other one, too")
    return None if a is None or b is None else (a, b)


def _picture(given: Mapping[str, Any], name: str) -> Picture | None:
    """A given file, called by its name alone in messages."""
    if name not in given:
        return None
    picture = open_picture(Path(given[name]))
    return Picture(picture.data, Path(picture.name).name)


def _whole(given: Mapping[str, Any], name: str, what: str, *, default: int, most: int | None = None) -> int:
    value = given.get(name, default)
    if not _is_number(value) or int(value) != value or (most is not None and not 1 <= value <= most):
        expected = "a whole number" if most is None else f"1 … {most}; `rcg sample` draws as many as you like"
        raise ConfigError(f"{what} is out of range", got=value, expected=expected)
    return int(value)
