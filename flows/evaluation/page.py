"""What a person reads of an evaluation: a table in the terminal, and a page with pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from components.images.pictures import grid, png_bytes
from components.metrics.names import MEANINGS, NAMES, SCALES, shown
from components.metrics.networks.base import Identity
from components.metrics.sight import Sight
from components.pages import charts
from components.pages.page import render
from components.pages.svg import Drawing
from flows.evaluation.rows import Judged

_TEMPLATE = Path(__file__).with_suffix(".html")
_REAL = "real"


def columns(judged: Judged) -> list[str]:
    """Numbers in the order in which they are shown: those that are valid for so many pictures first."""
    known = judged.rows[0].numbers
    first = [name for name in judged.leading if name in known]
    ordered = [*first, *(name for name in NAMES if name in known and name not in first)]
    return [name for name in ordered if name not in judged.hidden]


def cell(name: str, numbers: dict[str, float]) -> str:
    """One number in text; empty where it is not known."""
    if name not in numbers:
        return ""
    low, high = numbers.get(f"{name}_low"), numbers.get(f"{name}_high")
    return shown(name, numbers[name]) + (f" ({low:.3g}…{high:.3g})" if low is not None and high is not None else "")


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
    size = f"{protocol.n_reference:,} pictures" if protocol.n_reference else "unknown size"
    told = [
        Identity(**protocol.network).line,
        f"reference of {size}, statistics {protocol.reference_statistics}; {protocol.n:,} pictures each; "
        f"pictures {protocol.pictures}",
        judged.why,
    ]
    if judged.real:
        told.append(
            "real: pictures of one half of the reference against the other half; their Frechet distance is bias"
        )
    return [*told, *judged.remarks]


def page(judged: Judged) -> str:
    """One self-contained page; equal content gives equal text."""
    shown = columns(judged)
    names = short_names([row.name for row in judged.rows])
    rows = [[name, *(cell(key, row.numbers) for key in shown)] for name, row in zip(names, judged.rows, strict=True)]
    if judged.real:
        rows.append([_REAL, *(cell(name, judged.real) for name in shown)])
    return render(
        _TEMPLATE,
        title=f"{', '.join(names[:3])}{' and others' * (len(names) > 3)} against real pictures",
        pictures={
            name: png_bytes(grid(row.shown))
            for name, row in zip(names, judged.rows, strict=True)
            if row.shown is not None
        },
        reference=None if judged.shown is None else png_bytes(grid(judged.shown)),
        table_rows=rows,
        columns=["", *(NAMES[name] for name in shown)],
        protocol=judged.rows[0].protocol.digest,
        why=judged.why,
        facts=facts(judged),
        meanings={NAMES[name]: MEANINGS[name] for name in shown},
        charts=[(NAMES[name], MEANINGS[name], _chart(name, judged, names)) for name in shown[:3]],
        stand=None if judged.sight is None else _stand(judged.sight, judged, names),
        conditions=judged.rows[0].protocol.model_dump(mode="json"),
        sampled={row.name: dict(row.sampled) for row in judged.rows if row.sampled},
    )


def short_names(names: Sequence[str]) -> list[str]:
    """Without the folders, unless two would be called alike."""
    short = [name.rstrip("/").rpartition("/")[2] for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)


def _stand(sight: Sight, judged: Judged, names: Sequence[str]) -> Drawing:
    """Where the sets stand between untouched and spoiled pictures of the reference."""
    own = {n: r.numbers["control_fd"] for n, r in zip(names, judged.rows, strict=True) if "control_fd" in r.numbers}
    spoiled = {f"{_REAL}, {name}": control.fd for name, control in sight.controls.items()}
    return charts.bars(
        {"": {_REAL: sight.fd_real} | own | spoiled},
        title="Distance to real pictures",
        marked=[_REAL, *spoiled],
    )


def _chart(name: str, judged: Judged, names: Sequence[str]) -> Drawing:
    """A bar for each set, the real pictures' one marked; numbers below 0, of unbiased estimates, stand at 0."""
    values = {who: row.numbers[name] for who, row in zip(names, judged.rows, strict=True) if name in row.numbers}
    if name in judged.real:
        values[_REAL] = judged.real[name]
    factor = SCALES.get(name, 1)
    return charts.bars({"": {k: max(0.0, v * factor) for k, v in values.items()}}, title=NAMES[name], marked=[_REAL])
