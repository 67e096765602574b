"""Documents for readers to choke on: arbitrary bytes, and valid ones with something wrong in them."""

import json
from typing import Any

import yaml
from hypothesis import strategies as st

NASTY: list[Any] = [
    None,
    True,
    0,
    -1,
    2**31,
    2**63 - 1,
    2**64,
    10**30,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "x",
    "\ud800",
    "../../x",
    "\x1b[31m",
    "1e999",
    [],
    {},
    [[]],
    {"": None},
    [1, "a", None],
    {"a": {"b": 1}},
]
TOKENS = [
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"10" * 40,
    b"\\ud800",
    b"[" * 100_000,
    b'{"a":' * 3000,
    b"\xff",
    b"\x00",
    b"\xef\xbb\xbf",
    b"!!int 1e99",
    b"!!timestamp 2001-99-99",
    b"!!binary x",
    b"&a [*a]",
    b"*a",
    b"? ",
    b"!!python/object:os.system {}",
    b"\r\n",
    b'"',
    b",",
    b"true",
    b"null",
    b"9" * 5000,
    b"end 1 ",
    b"chunk c0 -1 x\n",
    b"PK\x03\x04",
]


@st.composite
def documents(draw: st.DrawFn, example: bytes) -> bytes:
    """Arbitrary bytes, the example with some of its bytes changed, or, if it is JSON or YAML, with another value."""
    kind = draw(st.sampled_from(["bytes", "changed", "changed", "value", "value"]))
    if kind == "bytes":
        return draw(st.one_of(st.binary(max_size=60), st.sampled_from(TOKENS)))
    if kind == "value" and (value := _plain(example)) is not None:
        for _ in range(draw(st.integers(1, 3))):
            value = _with(draw, value)
        return json.dumps(value).encode()
    data = example
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 1, 1, 4, 40, len(data)])))
        new = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4), st.just(data[start:stop] * 2)))
        data = data[:start] + new + data[stop:]
    return data


def _plain(example: bytes) -> Any:
    """The value of a JSON or YAML document; None for anything else."""
    try:
        value = yaml.safe_load(example)
    except (yaml.YAMLError, ValueError):
        return None
    return value if isinstance(value, dict | list) else None


def _with(draw: st.DrawFn, value: Any) -> Any:
    """The value with one of its values replaced, left out or added."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(NASTY))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    changed = dict(value) if isinstance(value, dict) else list(value)
    what = draw(st.sampled_from(["below", "below", "below", "gone", "more"]))
    if what == "gone":
        del changed[key]
    elif what == "more":
        changed = {**changed, "more": 1} if isinstance(changed, dict) else [*changed, *changed]
    else:
        changed[key] = _with(draw, value[key])
    return changed
