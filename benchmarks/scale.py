"""What a long list costs the driver: memory per picture and time of snapshot, of collect's merge, and of its splits.

    python -m benchmarks.scale [N ...]          # 1,000,000 and 10,000,000 pictures without a number

Pictures are made up: their listing comes in pages as a bucket's does, what collect learned of each is made on the fly,
and nothing is kept of what is written but collection.lock. Each part runs in a process of its own; `bytes` is its peak
(VmHWM) above that of the smallest list, per picture; times are of the processor. Parts: `snapshot` of a new list,
`again` over its own lock, `verify` (what collect, status and doctor begin with), `merge` (labels, splits, index
files), `said` (a merge where every picture has a caption), `near` (a merge with near-duplicates of up to 4 bits),
`splits` (that part of it alone).
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALLEST, COUNTS = 1024, (1_000_000, 10_000_000)
PARTS = ("snapshot", "again", "verify", "merge", "said", "near", "splits")


def main(counts: tuple[int, ...]) -> None:
    """Print one line per part and size."""
    print(f"{'part':>9} {'pictures':>10} {'peak MB':>8} {'bytes':>7} {'cpu s':>8} {'us/picture':>10}")
    least: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in (SMALLEST, *counts):
            for part in PARTS:
                command = [sys.executable, "-m", "benchmarks.scale", part, str(n), folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                row = json.loads(done.stdout)
                least.setdefault(part, row["peak_mb"])
                each = (row["peak_mb"] - least[part]) * 2**20 / n
                seconds = f"{row['seconds']:>8.1f} {row['seconds'] / n * 1e6:>10.1f}"
                print(f"{part:>9} {n:>10} {row['peak_mb']:>8.0f} {each:>7.0f} {seconds}", flush=True)


class MadeUp:
    """n pictures, listed with an etag each, as a source."""

    uri, reads_at_once, follows_links = "made-up", 1, False

    def __init__(self, n: int, *, said: bool = False) -> None:
        from components.collection.source_base import LeftOut

        self.n, self.said, self.left_out = n, said, LeftOut()

    def list(self) -> Iterator[Any]:
        from components.collection.source_base import Item

        for i in range(self.n):
            yield Item(key_of(i), len(self.read(key_of(i))), f"etag:{i:032x}")
        if self.said:
            yield Item("metadata.csv", 1, None)

    def read(self, key: str, pin: str | None = None) -> bytes:  # noqa: ARG002
        if key == "metadata.csv":
            lines = [f"{key_of(i)},a picture of thing number {i}" for i in range(self.n)]
            return "\n".join(["file_name,text", *lines]).encode()
        return b"P5\n8 1\n255\n" + int(key[-12:-4]).to_bytes(8)

    def content_pin(self, key: str) -> str:
        return hashlib.sha256(self.read(key)).hexdigest()[:16]


def key_of(i: int) -> str:
    """Keys in order; 1,000 to a folder."""
    return f"{i // 1000:06d}/{i:08d}.pgm"


@dataclass
class MadeUpFacts:
    """What collect's first half leaves: a row per picture, made again whenever it is asked for."""

    lock: Any
    source: MadeUp
    params: Any
    threads: int = 1

    @property
    def out(self) -> "MadeUpFacts":
        return self

    def write_bytes(self, _name: str, _data: bytes) -> None: ...

    def write_json(self, _name: str, _value: Any) -> None: ...

    def rows(self, chunk: Any) -> list[dict[str, Any]]:
        """Rows of a chunk as the facts' file has them."""
        shared = {"width": 8, "height": 1, "constant": False, "reject": None}
        rows = []
        for entry in self.lock.entries(chunk):
            digest = hashlib.sha256(self.source.read(entry.key))
            known = {"key": entry.key, "size": entry.size, "sha256": digest.hexdigest(), "hash": digest.digest()[:16]}
            rows.append(known | shared)
        return rows


def work(part: str, n: int, root: Path) -> None:
    """In a process of its own: one part, then what it cost."""
    from components.collection.lock import read_lock
    from components.collection.snapshot import take_snapshot, verify_source

    source, path = MadeUp(n, said=part == "said"), root / f"{n}.lock"
    start = time.process_time()
    if part in ("snapshot", "again"):
        take_snapshot(source, path, rebuild=False)
    elif part == "splits":
        deal(n)
    elif part == "verify":
        verify_source(source, read_lock(path))
    else:
        merge(source, read_lock(path), near_bits=4 if part == "near" else 0)
    seconds = time.process_time() - start
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"peak_mb": int(status["VmHWM"].split()[0]) / 1024, "seconds": seconds}))


def deal(n: int) -> None:
    """Splits of n pictures that are not near each other, chunk by chunk."""
    import numpy as np

    from benchmarks.memory_stages import collect_params
    from components.collection.snapshot import CHUNK_SIZE
    from components.collection.splits import Splitter

    splitter, rng = Splitter(collect_params(near_bits=4).split), np.random.default_rng(0)
    for start in range(0, n, CHUNK_SIZE):
        hashes = [row.tobytes() for row in rng.integers(0, 256, (min(CHUNK_SIZE, n - start), 16), np.uint8)]
        splitter.assign([f"{start + i:064x}" for i in range(len(hashes))], hashes)


def merge(source: MadeUp, lock: Any, near_bits: int) -> None:
    """collect on rank 0, after the pictures were read."""
    from dataclasses import replace

    from benchmarks.memory_stages import collect_params
    from components.collection.lock import MetadataFile
    from flows.stages.collect import run as stage

    params = collect_params(near_bits)
    if source.said:
        data = source.read("metadata.csv")
        lock = replace(lock, metadata=[MetadataFile("metadata.csv", len(data), hashlib.sha256(data).hexdigest())])
    names = {chunk.name for chunk in lock.chunks}
    stage._index(params, stage._Labels(params, source, lock), names, MadeUpFacts(lock, source, params))  # type: ignore[arg-type]


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in PARTS:
        work(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(tuple(int(n) for n in sys.argv[1:]) or COUNTS)
