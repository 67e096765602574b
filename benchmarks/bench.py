"""All measurements in one run, mostly as ratios: `make bench`. Takes about an hour on two cores.

python -m benchmarks.bench [busy] [cache] [attention] [commands] [evaluate] [incremental] [memory] [paper]
"""

import sys
from collections.abc import Callable

from benchmarks.table import Row, save, show


def cache() -> list[Row]:
    from benchmarks.compute import cache_rows

    return cache_rows()


def attention() -> list[Row]:
    from benchmarks.compute import attention_rows

    return attention_rows()


def commands() -> list[Row]:
    from benchmarks.commands import command_rows

    return command_rows()


def incremental() -> list[Row]:
    from benchmarks.incremental import incremental_rows

    return incremental_rows()


def busy() -> list[Row]:
    from benchmarks.busy import busy_rows

    return busy_rows()


def memory() -> list[Row]:
    """Peak of collect, encode and evaluate at the largest collection over that at the smallest."""
    from benchmarks.memory import COUNTS, measure

    peaks = measure(COUNTS)
    small, large = min(COUNTS), max(COUNTS)
    rows = []
    for stage in ("collect", "encode", "evaluate"):
        by_n = {row["n"]: row for row in peaks if row["stage"] == stage}
        ratio = float(by_n[large]["peak_mb"]) / float(by_n[small]["peak_mb"])
        where = f"{stage}, {large:,} against {small:,} pictures"
        rows.append(Row("peak memory", where, ratio, "", 1.2, {str(n): row for n, row in by_n.items()}))
    return rows


def evaluate() -> list[Row]:
    from benchmarks.evaluation import evaluation_rows

    return evaluation_rows()


def paper() -> list[Row]:
    from benchmarks.paper_cases import CASES
    from benchmarks.paper_scale import paper_rows

    return paper_rows(list(CASES), repeats=3)


PARTS: dict[str, Callable[[], list[Row]]] = {
    "commands": commands,
    "busy": busy,
    "cache": cache,
    "attention": attention,
    "incremental": incremental,
    "memory": memory,
    "evaluate": evaluate,
    "paper": paper,
}


def main(wanted: list[str]) -> int:
    """Measure, print and save; 1 when a target was missed."""
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name, measure in PARTS.items():
        if not wanted or name in wanted:
            found = measure()
            print(show(found), flush=True)
            rows += found
    print(f"saved in {save(rows, '-'.join(wanted))}")
    return int(any(row.reached is False for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
