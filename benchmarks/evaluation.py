"""The ruler's own speed and memory: FID's Inception against a plain one, and an evaluation of 50,000 pictures.

    python -m benchmarks.bench evaluate

The plain side is torchvision's Inception, batch norms and all, behind torch's own resize; where torch-fidelity is
installed, its network is timed, too. Weights are random, and all take turns in one run. Memory is what the kernel
counted (ru_maxrss) of a process of its own.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.table import Row

if TYPE_CHECKING:
    import numpy as np

COUNTS = (1_000, 50_000)
_N, _PX, _REPEATS = 16, 256, 3
_DIM = 256
_MOST_MB = 1536


def evaluation_rows() -> list[Row]:
    """Pictures per second, as ratios, and peak memory over the number of pictures."""
    return [*speed_rows(), *memory_rows(COUNTS)]


def speed_rows() -> list[Row]:
    """Seconds of the others over ours, for the same pictures."""
    import numpy as np

    from benchmarks.compute import best

    images = np.random.default_rng(0).integers(0, 256, (_N, _PX, _PX, 3), np.uint8)
    runs = {"ours": _ours(images), "plain": _plain(images)}
    if importlib.util.find_spec("torch_fidelity") is not None:
        runs["torch-fidelity"] = _fidelity(images)
    found = best(runs, _REPEATS)
    where = f"FID's Inception, {_N} pictures of {_PX} px"
    rows = [Row("pictures per second", where, _N / found["ours"], "/s", None, found)]
    return rows + [
        Row(f"{name} / ours", where, found[name] / found["ours"], "x", 1.0, found) for name in list(runs)[1:]
    ]


def _ours(images: "np.ndarray") -> Callable[[], object]:
    from components.metrics.networks.base import Identity
    from components.metrics.networks.inception import Inception, InceptionFeatures
    from components.nn.vit import seeded_init

    with seeded_init(0):
        features = InceptionFeatures(Inception(), Identity("inception", "random", "0" * 64, ""))
    return lambda: features(images)


def _torchvision() -> Any:
    from torchvision.models.inception import Inception3

    from components.nn.vit import seeded_init

    with seeded_init(0):
        return Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()


def _plain(images: "np.ndarray") -> Callable[[], object]:
    import torch
    from torch.nn import functional

    network = _torchvision()

    @torch.inference_mode()
    def run() -> object:
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        return network((functional.interpolate(x, (299, 299), mode="bilinear", align_corners=False) - 128) / 128)

    return run


def _fidelity(images: "np.ndarray") -> Callable[[], object]:
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(_torchvision().state_dict(), path)
        network = FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=str(path)).eval()
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    @torch.inference_mode()
    def run() -> object:
        return network(x)

    return run


def memory_rows(counts: tuple[int, ...]) -> list[Row]:
    """Peak of measuring and comparing n pictures with as many others."""
    peaks = {n: _peak(n) for n in counts}
    small, large = min(counts), max(counts)
    raw: dict[str, Any] = {str(n): peak for n, peak in peaks.items()}
    where = f"evaluation of {large:,} pictures, {_DIM} features"
    against = f"evaluation, {large:,} against {small:,} pictures"
    grown = peaks[large]["peak_mb"] / peaks[small]["peak_mb"]
    return [
        Row("peak memory", where, peaks[large]["peak_mb"], "MB", _MOST_MB, raw),
        Row("peak memory", against, grown, "", None, raw),
    ]


def _peak(n: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.evaluation", str(n)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


class _Projection:
    """A network that costs next to nothing: a fixed random projection of small pictures, normalized."""

    def __init__(self) -> None:
        import numpy as np

        from components.metrics.networks.base import Identity

        self.identity = Identity("timm", "projection", "0" * 64, "none")
        self._weight = np.random.default_rng(0).normal(size=(8 * 8 * 3, _DIM)).astype(np.float32) / 8

    def to(self, _device: Any) -> "_Projection":
        return self

    def __call__(self, images: "np.ndarray") -> Any:
        import numpy as np

        from components.metrics.networks.base import Seen

        return Seen(np.tanh((images.reshape(len(images), -1) / np.float32(255) - 0.5) @ self._weight))


def _batches(n: int, seed: int) -> "Iterator[np.ndarray]":
    import numpy as np

    rng = np.random.default_rng(seed)
    for start in range(0, n, 500):
        yield rng.integers(0, 256, (min(500, n - start), 8, 8, 3), np.uint8)


def run(n: int) -> None:
    """In a process of its own: n pictures against n others as `rcg evaluate` does it; prints this process's peak."""
    import resource
    import time

    from components.metrics.measured import measure
    from components.metrics.suite import compare

    start, began = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        sets = []
        for seed in (0, 1):
            (Path(folder) / str(seed)).mkdir()
            sets.append(measure(_batches(n, seed), n, _Projection(), Path(folder) / str(seed), lambda _done: None))
        compare(sets[0], sets[1], kind="timm", k=3, n_bootstrap=5, seed=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"peak_mb": peak / 1024, "imports_mb": began / 1024, "seconds": time.perf_counter() - start}
    print(json.dumps(found))


if __name__ == "__main__":
    run(int(sys.argv[1]))
