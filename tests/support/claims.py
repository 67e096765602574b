"""What a picture claims of how it was drawn."""

from typing import Any

from components.bundle.provenance import Provenance


def a_claim(**changes: Any) -> Provenance:
    values: dict[str, Any] = {
        "schema_version": 1,
        "bundle": "b" * 64,
        "parents": {},
        "seed": 3,
        "index": 7,
        "first": 0,
        "n": 9,
        "shown": None,
        "columns": None,
        "condition": {},
        "sampling": {"batch_size": 4},
        "platform": None,
    }
    return Provenance.model_validate(values | changes)
