"""What reading a large cache costs a worker: rows and bytes per second, memory, disk, and the time to resume.

    python -m benchmarks.loader [SHARDS ...]    # 256 and 1,024 shards without a number

Shards of 512 rows of 2.1 kB (a representation of 256 numbers, 16 x 16 tokens) are fetched by a copy of the file, as
from a store elsewhere; batches have 256 rows. Each line is a process of its own. `window`: components/cache/parts.py,
200 batches by 16 lanes with windows of 4 shards; `rank 1/4`: the same as the first of four workers; `whole`: every
shard is fetched first and rows are shuffled over all. Seconds are of the processor, of all threads: the machine may
have other work. `first`: until the first batch; MB and rows per second of those behind it; `resume`: until the first
batch of a new reader at step 200, and whether it has the same rows. `peak MB` is VmHWM above that of a process that
has imported the same, `on disk` the most shards that were there at once. The last lines: how much more than a full
shuffle's the mean of a batch varies, over 2,500 such shards each of which is all of one kind.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

COUNTS, ROWS, BATCH, STEPS = (256, 1024), 512, 256, 200
PARTS = ("imports", "window", "rank 1/4", "whole")


def main(counts: tuple[int, ...]) -> None:
    """Print one line per part and size."""
    titles = ("", "shards", "first s", "MB/s", "rows/s", "resume s", "same", "peak MB", "on disk")
    print(" ".join(f"{title:>8}" for title in titles))
    for n in counts:
        base = 0.0
        for part in PARTS:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "benchmarks.loader", part, str(n), folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = json.loads(done.stdout.splitlines()[-1])
            if part == "imports":
                base = row["peak_mb"]
                continue
            fast = (f"{row['first']:.2f}", f"{row['mb_s']:.0f}", f"{row['rows_s']:.0f}", f"{row['resume']:.2f}")
            cells = (part, n, *fast, row["same"], f"{row['peak_mb'] - base:.0f}", row["disk"])
            print(" ".join(f"{cell!s:>8}" for cell in cells), flush=True)

    for lanes, window in ((128, 4), (16, 4)):
        print(f"{lanes} lanes, windows of {window}: variance of a batch's mean {variance(lanes, window):.2f}")


def variance(lanes: int, window: int, n: int = 2500) -> float:
    """Of the mean of a batch over that of a full shuffle; a row's value is the number of its shard."""
    from components.cache.config import Reading
    from components.cache.windows import WindowOrder

    order = WindowOrder(np.full(n, ROWS), Reading(lanes=lanes, window=window))
    steps = range(0, n * ROWS // BATCH, 100)
    batches = [order.indices(seed, step, BATCH, slice(0, BATCH)) // ROWS for seed in range(3) for step in steps]
    return float(np.var([batch.mean() for batch in batches]) / (np.var(np.arange(n)) / BATCH))


class Elsewhere:
    """An encode artifact whose shards, n links to one file, are fetched into a folder."""

    def __init__(self, root: Path, n: int) -> None:
        from components.cache.reader import Cache, CacheInfo, cache_fields
        from components.cache.shards import ShardWriter, shard_name
        from components.target import TargetSpec

        spec = TargetSpec(space="tokens", shape=(16, 16), dtype="int32", n_codes=1024, image_px=256)
        fields, self._scratch, self.most = cache_fields(256, spec, None), root / "here", 0
        self._scratch.mkdir()
        self.file = root / "shard.arrow"
        with ShardWriter(self.file, fields) as shard:
            values = made_up()
            rows = [{"key": f"{i}.png", "sha256": "0" * 64, "split": "train", "view": 0} for i in range(ROWS)]
            shard.add([row | {"class": None, "caption": None} for row in rows], values)
        info = CacheInfo(fields=fields, target=spec, n_views=1, counts={}, chunks=[f"c{i:06d}" for i in range(n)])
        counts = Cache(info, [self.file], ram_bytes=0).count()
        self._info = info.model_copy(update={"shards": (counts,) * n}).model_dump(mode="json")
        self._names = {shard_name(chunk) for chunk in info.chunks}

    def read_json(self, _name: str) -> Any:
        return self._info

    def path(self, name: str) -> Path:
        path = self._scratch / name.replace("/", "-")
        shutil.copyfile(self.file, path)
        self.most = max(self.most, len(list(self._scratch.iterdir())))
        return path

    def release(self, name: str) -> None:
        (self._scratch / name.replace("/", "-")).unlink()


def made_up() -> dict[str, np.ndarray]:
    """Rows of a shard."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((ROWS, 256), np.float32)
    return {"representation": z, "target": rng.integers(0, 1024, (ROWS, 16, 16), np.int32)}


def work(part: str, n: int, root: Path) -> dict[str, Any]:
    """In a process of its own: one part, then what it cost."""
    import torch

    from components.cache import parts as _parts  # noqa: F401

    torch.set_num_threads(1)
    artifact = Elsewhere(root, n)
    if part == "imports":
        return {}
    start = partial(ours, artifact, part)
    return measured(start) | {"disk": artifact.most}


def ours(artifact: Elsewhere, part: str, step: int) -> Iterator[Any]:
    """Batches from a step on, of a reader that was made for them."""
    import torch

    from components.cache.config import Reading
    from components.cache.reader import open_cache
    from components.training.checkpoint import NoCheckpoints
    from components.training.config import TrainConfig
    from components.training.order import Batches
    from components.training.worker import Worker

    size = 4 if part.startswith("rank") else 1
    worker = Worker(0, size, torch.device("cpu"), NoCheckpoints(), print, artifact.file.parent, 1000, 1)
    training = open_cache(artifact, "whole" if part == "whole" else Reading(lanes=16, window=4)).training()
    config = TrainConfig.tiny().model_copy(update={"batch_size": BATCH})
    for _, batch in Batches(training.fetch, training.examples, config, worker).between(step, step + 10**6):
        yield batch


def measured(start: Any) -> dict[str, Any]:
    """`start(step)` gives batches from there on."""
    begun = time.process_time()
    batches = start(0)
    first = next(batches)
    there = time.process_time()
    for _ in range(STEPS):
        batch = next(batches)
    seconds = time.process_time() - there
    n_bytes, rows = sum(t.nbytes for t in first.values()), len(first["representation"])
    found = {"first": there - begun, "rows_s": STEPS * rows / seconds, "mb_s": STEPS * n_bytes / seconds / 1e6}
    del batches
    begun = time.process_time()
    again = start(STEPS)
    batch_again = next(again)
    same = all((batch[name] == batch_again[name]).all() for name in batch)
    return found | {"resume": time.process_time() - begun, "same": bool(same)}


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in PARTS:
        result = work(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        print(json.dumps(result | {"peak_mb": int(status["VmHWM"].split()[0]) / 1024}))
    else:
        main(tuple(int(n) for n in sys.argv[1:]) or COUNTS)
