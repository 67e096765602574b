"""Memory of the driver in `rcg snapshot` of a bucket: it must not grow with the collection.

    python -m benchmarks.listing

Up to 100,000 real keys on the S3 rig, 1,000,000 from made-up pages of a listing. Each snapshot runs in a process of its
own; its peak is what the kernel counted (VmHWM: ru_maxrss would count what the parent had, too). `again` is a second
snapshot over the finished lock. Writes docs/results/listing.json and listing.png.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

REAL, MADE_UP = (1_000, 10_000, 100_000), (100_000, 1_000_000)
RESULTS = Path(__file__).parents[1] / "docs/results"
_PAGE = 1000


def main() -> None:
    """Measure, print a table, save numbers and plot."""
    from tests.support.s3_rig import s3_server

    rows = []
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder) / "s3") as server:
        os.environ.update(server.environment)
        imports = _measure("imports", "-", Path(folder) / "none")["peak_mb"]
        for kind, counts in (("real", REAL), ("made-up", MADE_UP)):
            for n in counts:
                uri = f"s3://rcg/{n}" if kind == "real" else f"made-up://{n}"
                if kind == "real":
                    fill(uri, n)
                lock = Path(folder) / f"{kind}-{n}.lock"
                for pass_ in ("first", "again"):
                    found = _measure("snapshot", uri, lock)
                    row = {"keys": kind, "n": n, "pass": pass_, "seconds": round(found["seconds"], 1)}
                    rows.append(row | {"peak_mb": round(found["peak_mb"], 1)})
                    print(json.dumps(rows[-1]), flush=True)
        server_name = "versitygw 1.8.0 on this machine"
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    document = {"date": date, "server": server_name, "imports_mb": round(imports, 1), "rows": rows}
    (RESULTS / "listing.json").write_text(json.dumps(document, indent=1) + "\n")
    draw(rows, RESULTS / "listing.png")


def fill(uri: str, n: int) -> None:
    """n small objects, 1,000 to a folder."""
    from components.store import open_store

    store = open_store(uri)
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(lambda i: store.put(f"{i // 1000:04d}/{i % 1000:03d}.png", b"%08d" % i), range(n)):
            pass


def _measure(what: str, uri: str, lock: Path) -> dict[str, float]:
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.listing", what, uri, str(lock)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found | {"seconds": time.perf_counter() - start}


def work(what: str, uri: str, lock: Path) -> None:
    """In a process of its own: take the snapshot, then report this process's peak."""
    from components.collection.snapshot import take_snapshot
    from components.collection.source_s3 import S3Source

    class MadeUp(S3Source):
        """Pages as list_objects_v2 gives them, of as many keys as the address says."""

        def __init__(self, uri: str) -> None:
            super().__init__("s3://made-up")
            self._n = int(uri.removeprefix("made-up://"))
            self._bucket.request = self._request  # type: ignore[method-assign]

        def _request(self, method: str, _what: str, **parameters: Any) -> dict[str, Any]:
            start = int(parameters.get("ContinuationToken", 0))
            stop = min(start + _PAGE, self._n)
            listed = [
                {"Key": f"{i // 1000:04d}/{i % 1000:03d}.png", "Size": 8, "ETag": f'"{i:032x}"'}
                for i in range(start, stop)
            ]
            more = {"IsTruncated": stop < self._n, "NextContinuationToken": str(stop)}
            return {"Contents": listed, **more} if method == "list_objects_v2" else {}

    if what == "snapshot":
        take_snapshot(MadeUp(uri) if uri.startswith("made-up") else S3Source(uri), lock, rebuild=False)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"peak_mb": int(status["VmHWM"].split()[0]) / 1024}))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Peak over number of keys."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for kind, marker in (("real", "o"), ("made-up", "s")):
        for pass_, style in (("first", "-"), ("again", "--")):
            mine = [row for row in rows if row["keys"] == kind and row["pass"] == pass_]
            label = f"{kind} keys, {'first snapshot' if pass_ == 'first' else 'again, over its lock'}"
            axes.plot([r["n"] for r in mine], [r["peak_mb"] for r in mine], style, marker=marker, label=label)
    axes.set(xscale="log", xlabel="objects in the bucket", ylabel="peak memory of the driver, MB", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        work(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        main()
