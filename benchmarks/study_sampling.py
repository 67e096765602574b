"""How is a finished painter best sampled? Guidance and evaluations, without any training.

python -m benchmarks.study_sampling PROJECT JUDGE NAME [SEED …]     seeds 0, 1 and 2 unless some are named

PROJECT: a folder whose `rcg repro` is done; JUDGE: MobileNetV2's file (`python examples/encoder.py mobilenetv2`), which
may not be what PROJECT's encoder is. As many pictures as are held out are painted of the RDM's representations, and
one of each held-out representation (the oracle). Every row has the same noise. Writes docs/results/sampling-NAME.md.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from benchmarks.projects import artifact
from benchmarks.study_rows import Point, Row, Rows, measured, paragraph, table, title
from components.bundle.bundle import Bundle
from components.bundle.request import Request
from components.cache.reader import CacheSplit, open_cache
from components.files import file_sha256
from components.images.pictures import png_bytes, rows_grid, to_uint8
from components.metrics.frechet import frechet, principal_axes
from components.metrics.looks import blockiness, own_period
from components.metrics.memorization import memorization
from components.metrics.networks.base import extract
from components.metrics.networks.config import TimmNetwork
from components.metrics.prdc import precision_recall
from components.weights_file import WeightsFile
from flows.stages.evaluate.own import own_picture

OUT = Path("docs/results")
GRID = ((0.0, 12), (0.5, 12), (1.0, 12), (1.5, 12), (2.0, 12), (3.0, 12), (1.5, 6), (1.5, 8), (1.5, 60))
"""Guidance and steps; guidance above 0 evaluates the network twice at each step."""
SHOWN = ((0.0, 12), (1.0, 12), (2.0, 12), (1.5, 60))
METRICS = ("fd", "precision", "recall", "close", "blockiness", "oracle_fd", "own_picture_r1", "own_picture_r5")
AXES, K, PERCENTILE, N_SHOWN = 64, 3, 5.0, 24


@dataclass
class Subject:
    """A project's system, its held-out pictures, and a judge that conditioned nothing."""

    bundle: Bundle
    held_out: CacheSplit
    train: CacheSplit
    judge: TimmNetwork

    @classmethod
    def of(cls, root: Path, weights: Path, scratch: Path) -> "Subject":
        cache = open_cache(artifact(root, "encode", scratch))
        fields = ("target", "representation")
        judge = TimmNetwork(
            kind="timm",
            name="mobilenetv2_100",
            input_px=96,
            weights=WeightsFile(uri=str(weights), sha256=file_sha256(weights)),
        )
        bundle = Bundle.load(root / "artifacts" / "bundle")
        return cls(bundle, cache.held_out("test", fields), cache.training(fields), judge)

    def real(self, split: CacheSplit) -> np.ndarray:
        """Decoded by the codec, as what is painted is. Shapes: -> (n, px, px, 3) uint8."""
        parts = [split.rows(np.arange(i, min(i + 256, len(split))))["target"] for i in range(0, len(split), 256)]
        return np.concatenate([to_uint8(self.bundle.system.images({"target": part})) for part in parts])

    def painted(self, guidance: float, steps: int, seed: int, *, oracle: bool) -> np.ndarray:
        """One for each held-out picture. Shapes: -> (n, px, px, 3) uint8."""
        system, request = self.bundle.system, Request(n=len(self.held_out), seed=seed)
        pixels = system.sampling.pixels.model_copy(update={"guidance": guidance, "steps": steps})
        options = system.sampling.model_copy(update={"pixels": pixels})
        parts = []
        for here in system.split(request):
            z = self.held_out.rows(np.arange(here.start, here.stop))["representation"]
            rows = system.rows(request, here, given={"representation": z} if oracle else {}, options=options)
            parts.append(to_uint8(system.images(rows)))
        return np.concatenate(parts)


class Examination:
    """The metrics of paintings, in axes of the training pictures' features."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self._network = subject, subject.judge.load()
        train = self._features(subject.real(subject.train))
        self._center, self._axes = principal_axes(train, AXES)
        self.train, self.pictures = self._project(train), subject.real(subject.held_out)
        self.held_out = self._project(self._features(self.pictures))

    @cached_property
    def period(self) -> int:
        config = json.loads((self.subject.bundle.folder / "pixels" / "config.json").read_text())
        return own_period(config) or 4

    def _features(self, images: np.ndarray) -> np.ndarray:
        return extract(self._network, np.array_split(images, max(1, len(images) // 64)))[0]

    def _project(self, features: np.ndarray) -> np.ndarray:
        projected: np.ndarray = (features - self._center) @ self._axes
        return projected

    def _distances(self, x: np.ndarray, images: np.ndarray) -> dict[str, float]:
        precision, recall = precision_recall(self.held_out, x, k=K)
        copies = memorization(x, self.held_out, self.train, percentile=PERCENTILE)
        return {
            "fd": frechet(x, self.held_out),
            "precision": precision,
            "recall": recall,
            "close": copies.share / (PERCENTILE / 100),
            "blockiness": blockiness(images, self.period),
        }

    def of(self, rcg: np.ndarray, oracle: np.ndarray) -> dict[str, float]:
        x = self._project(self._features(oracle))
        own = own_picture(x, self.held_out, np.arange(len(x)))
        return self._distances(self._project(self._features(rcg)), rcg) | {"oracle_fd": frechet(x, self.held_out)} | own

    def of_real(self) -> dict[str, float]:
        """Of as many training pictures: the floor."""
        at = np.random.default_rng(0).permutation(len(self.train))[: len(self.held_out)]
        images = self.subject.real(self.subject.train)[at]
        return self._distances(self.train[at], images) | {"close": 1.0}


def examined(examination: Examination, seeds: Sequence[int]) -> tuple[Rows, dict[Point, np.ndarray]]:
    """All rows, and the pictures of the first seed that are shown."""
    subject, rows, shown = examination.subject, list[Row](), dict[Point, np.ndarray]()
    for seed in seeds:
        for guidance, steps in GRID:
            rcg, oracle = (subject.painted(guidance, steps, seed, oracle=oracle) for oracle in (False, True))
            if (guidance, steps) in SHOWN:
                shown.setdefault((guidance, steps), rcg[:N_SHOWN])
            rows.append(Row((guidance, steps), seed, examination.of(rcg, oracle)))
            print(rows[-1], flush=True)
    return Rows(rows), shown


def main(arguments: Sequence[str]) -> int:
    """Writes docs/results/sampling-NAME.md, .json and .png."""
    if len(arguments) < 3:
        print(__doc__)
        return 2
    torch.set_num_threads(1)
    started, (project, weights, named, *seeds) = time.monotonic(), arguments
    with tempfile.TemporaryDirectory() as scratch:
        examination = Examination(Subject.of(Path(project), Path(weights).resolve(), Path(scratch)))
        rows, shown = examined(examination, [int(seed) for seed in seeds] or [0, 1, 2])
    real, name = examination.of_real(), f"sampling-{named}"
    raw = {"real": real, "rows": rows.records("guidance", "steps")}
    (OUT / f"{name}.json").write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n")
    (OUT / f"{name}.png").write_bytes(png_bytes(rows_grid(list(shown.values()), folds=2)))
    command = f"python -m benchmarks.study_sampling PROJECT JUDGE {named}"
    lines = [
        *title("Guidance and evaluations of a finished painter", command, rows.seeds),
        "",
        *paragraph(
            f"{len(examination.held_out)} pictures of the RDM's representations and as many of held-out ones "
            "(the oracle), judged in 64 axes of MobileNetV2, which conditioned nothing. Guidance g samples "
            "with cond + g (cond - uncond). `close`: share of suspiciously close pictures over that of new real "
            "ones. Seeds are of sampling; there is one training."
        ),
        *table(
            ("guidance", "steps", "evaluations", *METRICS),
            [
                *[[f"{g:g}", str(n), str(n * (1 + (g > 0))), *rows.cells((g, n), METRICS)] for g, n in rows.points],
                ["real", "", "", *(f"{real[metric]:.3g}" if metric in real else "" for metric in METRICS)],
            ],
        ),
        "",
        f"![The same noise and representations, sampled in {len(shown)} ways]({name}.png)",
        "",
        *paragraph(f"Rows: {'; '.join(f'guidance {g:g} with {n} steps' for g, n in shown)}."),
        measured((time.monotonic() - started) / 60),
    ]
    (OUT / f"{name}.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
