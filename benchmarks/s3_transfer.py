"""Transfer rates of our S3 store against raw boto3 with default settings, in turns on one server.

    python -m benchmarks.s3_transfer

Small objects of 4 KiB put and got by 1 to 64 threads; one of 256 MB up and down, ours also with other numbers of parts
at once. Each pair is measured side by side, several times in turn, and the median ratio counts: other work on the
machine slows both. Writes docs/results/s3-transfer.json.
"""

import datetime
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.table import Row, show

CONCURRENCY = (1, 4, 16, 64)
PARTS_AT_ONCE = (1, 2, 4, 8)
N_SMALL, SMALL_BYTES, LARGE_BYTES = 300, 4096, 256 * 10**6
N_TURNS = 3
RESULTS = Path(__file__).parents[1] / "docs/results"


def transfer_rows() -> list[Row]:
    """Ratios of ours to boto3's; above 1 ours is faster. They are written down, too."""
    from tests.support.s3_rig import s3_server

    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder) / "s3") as server:
        os.environ.update(server.environment)
        rows = [*_small_rows(), *_large_rows(Path(folder))]
    _write(rows, load)
    return rows


def _small_rows() -> list[Row]:
    import boto3

    from components.store import open_store

    store, client = open_store("s3://rcg/ours"), boto3.client("s3")
    data = os.urandom(SMALL_BYTES)
    pairs: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
        "put": (
            lambda i: store.put(f"{i:04d}", data),
            lambda i: client.put_object(Bucket="rcg", Key=f"raw/{i:04d}", Body=data),
        ),
        "get": (
            lambda i: store.get(f"{i:04d}"),
            lambda i: client.get_object(Bucket="rcg", Key=f"raw/{i:04d}")["Body"].read(),
        ),
    }
    rows = []
    for name, (ours, raw) in pairs.items():
        for n_threads in CONCURRENCY:
            with ThreadPoolExecutor(n_threads) as pool:
                turns = [(_rate(pool, ours), _rate(pool, raw)) for _ in range(N_TURNS)]
            rows.append(_row(f"{name} 4 KiB, per second", f"{n_threads} at once", turns))
    return rows


def _rate(pool: ThreadPoolExecutor, work: Callable[[int], Any]) -> float:
    start = time.perf_counter()
    list(pool.map(work, range(N_SMALL)))
    return N_SMALL / (time.perf_counter() - start)


def _large_rows(folder: Path) -> list[Row]:
    import boto3

    from components.store import open_store, s3_parts

    store, client = open_store("s3://rcg/ours"), boto3.client("s3")
    (source := folder / "source").write_bytes(os.urandom(LARGE_BYTES))
    target = folder / "target"
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "upload": (
            lambda: store.upload("large", source),
            lambda: client.upload_file(str(source), "rcg", "raw/large"),
        ),
        "download": (
            lambda: store.download("large", target),
            lambda: client.download_file("rcg", "raw/large", str(target)),
        ),
    }
    rows = []
    for name, (ours, raw) in pairs.items():
        for n_parts in PARTS_AT_ONCE:
            s3_parts.PARTS_AT_ONCE = n_parts
            turns = [(_speed(ours), _speed(raw)) for _ in range(N_TURNS)]
            rows.append(_row(f"{name} 256 MB, MB/s", f"{n_parts} parts at once, boto3's default 10", turns))
    return rows


def _speed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return LARGE_BYTES / 1e6 / (time.perf_counter() - start)


def _row(what: str, where: str, turns: list[tuple[float, float]]) -> Row:
    ratio = statistics.median(ours / raw for ours, raw in turns)
    raw = {
        "ours": round(statistics.median(ours for ours, _ in turns), 1),
        "boto3": round(statistics.median(raw for _, raw in turns), 1),
        "ratios": [round(ours / raw, 2) for ours, raw in turns],
    }
    return Row(what, where, round(ratio, 2), "x", None, raw)


def _write(rows: list[Row], load: tuple[float, float, float]) -> None:
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    document: dict[str, Any] = {
        "date": date,
        "server": "versitygw 1.8.0, loopback",
        "cores": os.cpu_count(),
        "load_before": load,
        "rows": [{"what": r.what, "where": r.where, "ratio": r.value, **r.raw} for r in rows],
    }
    (RESULTS / "s3-transfer.json").write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    """Measure, print, save."""
    rows = transfer_rows()
    print(show(rows))
    for row in rows:
        print(f"{row.what:<28} {row.where:<44} {row.raw}")


if __name__ == "__main__":
    main()
