"""The rows of an evaluation: a set of pictures, its numbers and the protocol that they were measured under."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.config import Config
from components.documents import read_json, validated
from components.errors import ArtifactError
from components.metrics.names import NAMES, OF_EYES, OF_NEIGHBORS
from components.metrics.protocol import Protocol
from components.metrics.sight import Sight


@dataclass(frozen=True)
class Row:
    """One set of pictures and its numbers."""

    name: str
    content: str
    protocol: Protocol
    numbers: dict[str, float]
    sampled: Mapping[str, Any] = field(default_factory=dict)
    """The sampling options, where they are known."""
    shown: np.ndarray | None = None
    """The first pictures (n, h, w, 3) uint8; None in a row of an earlier evaluation."""


@dataclass(frozen=True)
class Judged:
    """All rows have one protocol. `real` is what real pictures get, half of the reference against the other half."""

    rows: list[Row]
    real: dict[str, float]
    n_real: int
    shown: np.ndarray | None
    """The first pictures of the reference (n, h, w, 3) uint8; None of statistics alone."""
    leading: list[str]
    why: str
    remarks: list[str]
    sight: Sight | None = None
    """What the judge made of spoiled pictures; None where it was not asked, or there were none to spoil."""

    @property
    def hidden(self) -> frozenset[str]:
        """Numbers that the judge cannot be believed in."""
        if self.sight is not None and self.sight.blind:
            return frozenset(NAMES) - frozenset(OF_EYES)
        return frozenset(OF_NEIGHBORS if self.sight is not None and self.sight.precision_blind else ())


def records(judged: Judged) -> Iterator[dict[str, Any]]:
    """The rows as plain data."""
    for row in judged.rows:
        yield {
            "samples": row.name,
            "content": row.content,
            "numbers": row.numbers,
            "protocol": row.protocol.digest,
            "conditions": row.protocol.model_dump(mode="json"),
            "sampled": dict(row.sampled),
        }


def as_json(judged: Judged) -> str:
    """Equal results give equal text."""
    value = {
        "rows": list(records(judged)),
        "real": {"n": judged.n_real, "numbers": judged.real},
        "leading": judged.leading,
        "why": judged.why,
        "remarks": judged.remarks,
        "controls": {} if judged.sight is None else judged.sight.metrics(),
    }
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


class _Record(Config):
    """A row of an earlier evaluation's JSON."""

    samples: str
    content: str
    numbers: dict[str, float]
    protocol: str
    conditions: Protocol
    sampled: dict[str, Any]


class _Rows(Config):
    rows: list[_Record]


def read_rows(file: Path) -> list[Row]:
    """Rows of what `rcg evaluate --json` wrote. Raises: ArtifactError for another file, or one edited by hand."""
    value = read_json(file, fix="rcg evaluate --json FILE writes one")
    found = validated(_Rows, {"rows": value.get("rows")} if isinstance(value, dict) else value, str(file)).rows
    for one in found:
        if one.conditions.digest != one.protocol:
            raise ArtifactError(f"{file} was edited by hand", got=one.protocol, expected=one.conditions.digest)
    return [Row(one.samples, one.content, one.conditions, one.numbers, one.sampled) for one in found]
