"""What a person and a program read of an evaluation: a table of text, and JSON."""

import json
from collections.abc import Iterator, Sequence

from flows.evaluation.run import Judged, records

NAMES = {
    "fid": "FID", "fid_infinity": "FID inf", "fd": "FD", "fd_infinity": "FD inf", "sfid": "sFID",
    "inception_score": "IS", "precision": "precision", "recall": "recall", "density": "density",
    "coverage": "coverage", "kid": "KID x1000", "mind": "MIND", "cmmd": "CMMD",
}  # fmt: skip


def columns(judged: Judged) -> list[str]:
    """Numbers in the order in which they are shown: those that are valid for so many pictures first."""
    known = judged.rows[0].numbers
    first = [name for name in judged.leading if name in known]
    return [*first, *(name for name in NAMES if name in known and name not in first)]


def cell(name: str, numbers: dict[str, float]) -> str:
    """One number in text; empty where it is not known."""
    if name not in numbers:
        return ""
    value = numbers[name] * (1000 if name == "kid" else 1)
    if name in ("precision", "recall", "density", "coverage"):
        return f"{value:.3f}"
    low, high = numbers.get(f"{name}_low"), numbers.get(f"{name}_high")
    return f"{value:.4g}" + (f" ({low:.3g}…{high:.3g})" if low is not None and high is not None else "")


def table(judged: Judged) -> Iterator[str]:
    """Lines for a terminal."""
    shown = columns(judged)
    rows = [["", *(NAMES[name] for name in shown), "protocol"]]
    rows += [[r.name, *(cell(name, r.numbers) for name in shown), r.protocol.digest[:12]] for r in judged.rows]
    if judged.real:
        rows.append([f"real ({judged.n_real})", *(cell(name, judged.real) for name in shown), ""])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    yield from ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    yield ""
    yield from facts(judged)


def facts(judged: Judged) -> Sequence[str]:
    """Sentences that belong to the numbers."""
    protocol = judged.rows[0].protocol
    network = protocol.network
    size = f"{protocol.n_reference:,} pictures" if protocol.n_reference else "unknown size"
    told = [
        f"{network['kind']}: {network['model']}, sha256 {network['weights'][:12]}; {network['resize']}",
        f"reference of {size}, statistics {protocol.reference_statistics}; {protocol.n:,} pictures each; "
        f"pictures {protocol.pictures}",
        judged.why,
    ]
    if judged.real:
        told.append(
            "real: pictures of one half of the reference against the other half; their Frechet distance is bias"
        )
    return [*told, *judged.remarks]


def as_json(judged: Judged) -> str:
    """Equal results give equal text."""
    value = {"rows": list(records(judged)), "real": {"n": judged.n_real, "numbers": judged.real},
             "leading": judged.leading, "why": judged.why, "remarks": judged.remarks}  # fmt: skip
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
