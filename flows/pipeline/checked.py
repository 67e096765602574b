"""params.yaml, checked, as plain data: remembered, because checking imports every component and with them torch."""

import contextlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.files import write_whole
from flows.identity.artifact import canonical_json, digest_of
from flows.identity.closure import module_digests

MEMORY = Path(".rcg/params.json")
_READERS = ("flows.pipeline.params", "flows.pipeline.policy")


def checked_sections(root: Path) -> dict[str, Any]:
    """What load_params() makes of root/params.yaml, section by section. Raises: ConfigError."""
    path, memory = root / "params.yaml", root / MEMORY
    key = _key(path.read_bytes()) if path.is_file() else None
    found = _remembered(memory, key)
    if found is not None:
        return found
    from flows.pipeline.params import load_params

    sections: dict[str, Any] = load_params(path).model_dump(mode="json")
    if key is not None:
        _remember(memory, key, sections)
    return sections


def _key(text: bytes) -> str:
    """The file, and the code that reads it."""
    code = {name: digest for reader in _READERS for name, digest in module_digests(reader).items()}
    return digest_of(canonical_json({"text": digest_of(text), "code": code, "pydantic": version("pydantic")}))


def _remembered(memory: Path, key: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return None
    fits = isinstance(value, dict) and value.get("key") == key and isinstance(value.get("sections"), dict)
    return value["sections"] if fits else None


def _remember(memory: Path, key: str, sections: Mapping[str, Any]) -> None:
    """Best effort: without it the next command is slower."""
    with contextlib.suppress(OSError):
        write_whole(memory, canonical_json({"key": key, "sections": sections}))
