"""Peak memory of collect, encode and evaluate on 1,000 and on 100,000 pictures: it must not grow with them.

    python -m benchmarks.memory

Each stage runs in a process of its own; its peak is what the kernel counted (ru_maxrss). `imports` is the same process
with everything imported and nothing done.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNTS = (1_000, 100_000)
STAGES = ("imports", "collect", "encode", "evaluate")
_PX = 8


def main() -> None:
    """Print one line per stage and collection size."""
    print(f"{'stage':>8} {'pictures':>9} {'peak MB':>8} {'seconds':>8}")
    for row in measure(COUNTS):
        print(f"{row['stage']:>8} {row['n']:>9} {row['peak_mb']:>8.0f} {row['seconds']:>8.1f}")


def measure(counts: tuple[int, ...]) -> list[dict[str, float | str]]:
    """Peak resident memory and wall time of every stage at every size."""
    rows = []
    for n in counts:
        with tempfile.TemporaryDirectory() as folder:
            make_pictures(Path(folder) / "pictures", n)
            for stage in STAGES:
                command = [sys.executable, "-m", "benchmarks.memory", stage, folder]
                start = time.perf_counter()
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                row: dict[str, float | str] = {"stage": stage, "n": n, "seconds": time.perf_counter() - start}
                rows.append(row | json.loads(done.stdout))
    return rows


def make_pictures(root: Path, n: int) -> None:
    """n different gray pictures of 8 x 8 pixels, 1,000 to a folder."""
    import numpy as np

    rng = np.random.default_rng(0)
    for start in range(0, n, 1000):
        folder = root / f"{start // 1000:03d}"
        folder.mkdir(parents=True)
        for i, pixels in enumerate(rng.integers(0, 256, (min(1000, n - start), _PX, _PX), np.uint8)):
            (folder / f"{i:03d}.pgm").write_bytes(b"P5\n8 8\n255\n" + pixels.tobytes())


def run_stage(stage: str, root: Path) -> None:
    """In a process of its own: do the stage's work, then report this process's peak."""
    import resource

    from benchmarks.memory_stages import collect, encode, evaluate

    if stage == "collect":
        collect(root)
    if stage == "encode":
        encode(root)
    if stage == "evaluate":
        evaluate(root)
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run_stage(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
