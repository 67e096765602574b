"""Paper-scale speed: ours against a plain implementation, row by row, in one run.

    python -m benchmarks.paper_scale [row …] [--repeats N]
    python -m benchmarks.paper_scale row --profile          where our side's time goes, operator by operator

Each side runs in a process of its own, so that its peak memory is its own; the sides take turns. Times are brought to
160 GFLOP/s by a 2048^3 matrix product before and after each call. A plain side that is further from the published
code's time than its tolerance voids the ratio: the comparison would not be with what it claims to be.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks.table import Row, save, show

GFLOPS = 160.0
_PROBE = 2048


def probe() -> float:
    """Rate of a square matrix product now, in GFLOP/s; the best of three."""
    a, b = torch.ones(_PROBE, _PROBE), torch.ones(_PROBE, _PROBE)
    return max(2 * _PROBE**3 / _seconds(lambda: a @ b) / 1e9 for _ in range(3))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def bare(shapes: list[tuple[int, int, int, int]]) -> float:
    """Seconds of these matrix products alone, with nothing between them."""
    total = 0.0
    for m, k, n, count in shapes:
        a, b, out = torch.ones(m, k), torch.ones(k, n), torch.empty(m, n)
        torch.mm(a, b, out=out)

        def product(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> object:
            return torch.mm(a, b, out=out)

        total += count * min(_seconds(product) for _ in range(3))
    return total


def measure_here(name: str, side: str, repeats: int) -> dict[str, Any]:
    """In a process of its own: time one side of one row."""
    from benchmarks.paper_cases import CASES

    call, examples = CASES[name].sides[side]()
    if name not in ("mage-sample",):
        call()  # warms up
    times, probes, products = [], [], []
    for _ in range(repeats):
        before = probe()
        seconds = _seconds(call)
        rate = (before + probe()) / 2
        products += [bare(CASES[name].shapes) / seconds] if side == "ours" and CASES[name].shapes else []
        times.append(seconds * rate / GFLOPS / examples)
        probes.append(rate)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"at_160_s": median(times), "probe": median(probes), "peak_mb": peak, "share": max(products, default=None)}


def profile_here(name: str) -> str:
    """One call of our side, as a table of operators."""
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.paper_cases import CASES

    call, _ = CASES[name].sides["ours"]()
    call()  # warms up
    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    return str(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40))


def measure(name: str, repeats: int) -> dict[str, dict[str, Any]]:
    """Both sides, in turns: {side: medians over the turns}."""
    found: dict[str, dict[str, Any]] = {}
    for side in ("plain", "ours"):
        command = [sys.executable, "-m", "benchmarks.paper_scale", name, "--side", side, "--repeats", str(repeats)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[side] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows_of(name: str, found: dict[str, dict[str, Any]]) -> list[Row]:
    """The ratio, void where plain is not the published code's equal; the share of the matrix products' rate."""
    from benchmarks.paper_cases import CASES, SHARES

    case, plain, ours = CASES[name], found["plain"], found["ours"]
    raw: dict[str, Any] = {
        **{f"{side}_{key}": value for side, values in found.items() for key, value in values.items()}
    }
    where = f"{plain['at_160_s']:.3g} / {ours['at_160_s']:.3g} s; {plain['peak_mb']:.0f} / {ours['peak_mb']:.0f} MB"
    if case.published is not None:
        off = plain["at_160_s"] / case.published - 1
        raw |= {"published_s": case.published, "plain_over_published": off + 1, "void": abs(off) > case.tolerance}
        where += f"; plain {off:+.0%}{' VOID' if raw['void'] else ''}"
    void = bool(raw.get("void"))
    rows = [Row(case.what, where, plain["at_160_s"] / ours["at_160_s"], "x", None if void else case.target, raw)]
    if name in SHARES:
        rows.append(
            Row(
                f"{case.what}: matrix products' share",
                f"target {SHARES[name]}",
                ours["share"] / SHARES[name],
                "x",
                1.0,
                {"share": ours["share"]},
            )
        )
    return rows


def paper_rows(names: list[str], repeats: int) -> list[Row]:
    """All rows that are asked for, printed as they come."""
    rows: list[Row] = []
    for name in names:
        found = rows_of(name, measure(name, 1 if name == "mage-sample" else repeats))
        print(show(found), flush=True)
        rows += found
    return rows


def main(arguments: list[str]) -> int:
    """Print the rows; save a complete run; 1 when a target was missed or a ratio is void."""
    from benchmarks.paper_cases import CASES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=", ".join(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", choices=("plain", "ours"), help="time one side of one row, and print JSON")
    parser.add_argument("--profile", action="store_true", help="print where our side's time goes")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.rows if name not in CASES]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(CASES)}")
    if given.side:
        print(json.dumps(measure_here(given.rows[0], given.side, given.repeats)))
        return 0
    if given.profile:
        for name in given.rows:
            print(profile_here(name))
        return 0
    rows = paper_rows(given.rows or list(CASES), given.repeats)
    if not given.rows:
        print(f"saved in {save(rows)}")
    return int(any(row.reached is False or row.raw.get("void") for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
