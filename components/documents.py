"""Documents that come from outside: whatever their bytes are, the reader gets plain values or an error of the project.

Limits hold before a value is used, so that no document costs much more memory or time than its bytes.
"""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from components.errors import ArtifactError, RcgError

MAX_BYTES = 2**28
"""Of one JSON document."""
MAX_DEPTH = 64
"""Lists and mappings inside each other."""
MAX_NUMBER = 2**63
"""Integers are smaller, so that they fit 64 bits wherever they are used."""
CONFLICT = b"<<<<<<< "
"""Begins the line with which git marks a conflict."""

_T = TypeVar("_T")


def read_bytes(
    path: Path, error: type[RcgError] = ArtifactError, *, limit: int = MAX_BYTES, fix: str | None = None
) -> bytes:
    """A small file whole. Raises: `error` naming a file that cannot be read or is bigger than `limit`."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be read", got=cause, fix=fix) from cause
    if len(data) > limit:
        raise error(f"{path} is too large to be read", got=f"more than {limit} bytes", expected=f"at most {limit}")
    return data


def parse_json(data: bytes, where: str, error: type[RcgError] = ArtifactError, *, fix: str | None = None) -> Any:
    """Plain values. Raises: `error` naming `where`, and the place in it, for anything else."""
    if len(data) > MAX_BYTES:
        raise error(f"{where} is too large to be read", got=f"{len(data)} bytes", expected=f"at most {MAX_BYTES}")
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as cause:
        why = "too deep" if isinstance(cause, RecursionError) else cause
        raise error(f"{where} is not valid JSON", got=f"{why}: {data[:60]!r}", fix=fix) from cause
    fault = plain_fault(value)
    if fault is not None:
        raise error(f"{where} holds what no document of ours holds", got=fault, fix=fix)
    return value


def read_json(path: Path, error: type[RcgError] = ArtifactError, *, fix: str | None = None) -> Any:
    """The same of a file."""
    return parse_json(read_bytes(path, error, fix=fix), str(path), error, fix=fix)


def parse_mapping(data: bytes, where: str, error: type[RcgError] = ArtifactError, *, fix: str | None = None) -> Any:
    """The same of a document that is a mapping."""
    value = parse_json(data, where, error, fix=fix)
    if not isinstance(value, dict):
        raise error(f"{where} is no mapping", got=type(value).__name__, expected="names and values", fix=fix)
    return value


def holds_conflict(data: bytes) -> bool:
    """Whether git left a merge of a text for a person to resolve."""
    return data.startswith(CONFLICT) or b"\n" + CONFLICT in data


def json_lines(data: bytes, where: str, error: type[RcgError] = ArtifactError) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, mapping) of each line that is not blank. Raises: `error` naming the line."""
    for number, raw in enumerate(io.BytesIO(data), 1):
        line = raw.removesuffix(b"\n")
        if line.strip():
            place = f"{where} line {number}"
            yield place, parse_mapping(line, place, error)


def validated(kind: type[_T] | TypeAdapter[_T], value: Any, where: str, error: type[RcgError] = ArtifactError) -> _T:
    """The value as a `kind`, a config or a union of them. Raises: `error` naming `where` and the first wrong key."""
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        return adapter.validate_python(value)
    except ValidationError as cause:
        raise error(f"{where} is not as it was written", got=first_fault(cause)) from cause


def first_fault(error: ValidationError) -> str:
    """The first wrong key, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def plain_fault(value: Any) -> str | None:
    """What keeps a value from being plain data of a bounded depth, and where; None for one that is.

    Plain are null, booleans, 64-bit integers, finite numbers, text without lone surrogates, lists, and mappings by
    text. A value that holds itself is too deep.
    """
    waiting: list[tuple[Any, tuple[Any, ...], int]] = [(value, (), 0)]
    while waiting:
        item, place, depth = waiting.pop()
        fault = _fault(item, depth)
        if fault is not None:
            return f"{fault} at {_place(place)}" if place else fault
        if isinstance(item, dict):
            if wrong := [key for key in item if not isinstance(key, str) or _fault(key, 0)]:
                return f"the key {wrong[0]!r:.60} at {_place(place) or 'the top'}"
            waiting += [(below, (place, key), depth + 1) for key, below in item.items()]
        elif isinstance(item, list):
            waiting += [(below, (place, index), depth + 1) for index, below in enumerate(item)]
    return None


def _fault(item: Any, depth: int) -> str | None:
    match item:
        case None | bool():
            return None
        case str():
            return None if item.isascii() or _is_text(item) else "text with a lone surrogate"
        case int():
            return None if -MAX_NUMBER <= item < MAX_NUMBER else "an integer of more than 64 bits"
        case float():
            return None if math.isfinite(item) else "a number that is not finite"
        case dict() | list():
            return None if depth < MAX_DEPTH else f"more than {MAX_DEPTH} lists and mappings inside each other"
        case _:
            return f"a {type(item).__name__}"


def _is_text(item: str) -> bool:
    try:
        item.encode()
    except UnicodeEncodeError:
        return False
    return True


def _place(place: tuple[Any, ...]) -> str:
    keys: list[str] = []
    while place:
        place, key = place
        keys.append(str(key))
    return ".".join(reversed(keys))
