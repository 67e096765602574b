"""What a memoised file of a chunk is a function of, as text: equal keys, equal bytes. Imports nothing heavy."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from components.images.config import DECODE_VERSION

_FACTS_VERSION = 1
_SHARD_FORMAT = 2
"""Raise it when equal params and pictures make other files."""


def facts_key(params: Mapping[str, Any], chunk: str) -> str:
    """Of what was read off a chunk's pictures. `params` is the section collect; `chunk` the chunk's digest."""
    decode = {"version": DECODE_VERSION, **params["decode"]}
    return f"{params['numerics']} {_digest({'facts': _FACTS_VERSION, 'chunk': chunk, 'decode': decode})}"


def shard_key(params: Mapping[str, Any], *, pictures: str, decode: Mapping[str, Any], **parents: str) -> str:
    """Of a chunk's shard of the encode cache. `params` is the section encode; `pictures` the sha256 of its index.

    `parents`: digests of encoder, codec and, where captions are read, text.
    """
    counting = {name: value for name, value in params.items() if name != "max_reject_share"}
    how = {"version": DECODE_VERSION, **decode}
    parts = {"params": counting, "pictures": pictures, "decode": how, **parents}
    return _digest({"format": _SHARD_FORMAT, **parts})


def _digest(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
