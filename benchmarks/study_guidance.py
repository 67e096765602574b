"""`make study-guidance`: ways to lead a pixel generator, by scale, and ways to fill a hole.

python -m benchmarks.study_guidance [SEED …]     seed 0 unless some are named

Generators of one size and training are told nothing, a class, a caption, or the known part of a picture. Guides are
trained beside them: a classifier, and a model of images and captions. Each captioned picture of the test split asks
for its class or its first caption; a label network that guided nothing says whether the digit is right. Then the
middle of each of these pictures is filled, knowing the rest. A seed is that of weights, data order and noise. Every
training is an ordinary run of the pipeline's stages, and every point is kept: killed and started again, the study
goes on.
"""

import copy
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from benchmarks.study import PLANS, Plan, Runner, Sections, seeded
from benchmarks.study_guidance_results import write_page
from benchmarks.study_rows import Row, Rows
from components.base import Batch
from components.bundle.request import Request
from components.bundle.system import System, SystemSampling
from components.codecs.base import load_codec
from components.collection.images import ImageIndex, open_images
from components.fields import mask_name
from components.generators.sampling import DiffusionSampling
from components.guides import load_guide
from components.images.pictures import grid, png_bytes, to_float, to_uint8
from components.metrics.fitting import RealImages
from components.metrics.frechet import frechet
from components.metrics.judge import Judge, find_judge
from components.metrics.prdc import precision_recall
from components.pixels import load_pixels
from components.rng import image_rng
from components.target import KNOWN
from components.text import load_text
from components.training.checkpoint import lone_worker
from flows.runs.stored import StoredArtifact
from flows.stages.evaluate.params import EvaluateParams

WORKSPACE = Path(".rcg/study-guidance")
PLAN = replace(
    PLANS["digits"],
    preset=Path("presets/digits-text.yaml"),
    source=str(WORKSPACE / "pictures"),
    workspace=WORKSPACE,
)
_DROPPED: Sections = {"port": "vector", "drop_prob": 0.1, "missing": "null"}
TOLD: dict[str, list[Sections]] = {
    "nothing": [],
    "class": [{"kind": "class", **_DROPPED}],
    "text": [{"kind": "text", **_DROPPED}],
    "the rest": [{"kind": "masked_image", "port": "spatial", "drop_prob": 0.1}],
}
GUIDE: Sections = {
    "kind": "unet_encoder",
    "width": 16,
    "multipliers": [1, 2],
    "n_blocks": 1,
    "attention_sides": [4],
    "heads": {"width": 16},
    "groups": 8,
    "latents": "standardized",
}
GUIDE_STEPS, GUIDE_BATCH = 400, 64
EARLIER = 0.1
"""Share of the training after which the weak copy of autoguidance was kept."""
HOLE = 4
"""Side of the square that is filled, of 8 pixels."""


@dataclass(frozen=True)
class Point:
    """One way to sample one generator. `way`: guidance, autoguidance, or what a guide recognizes."""

    told: str
    way: str = "none"
    scale: float = 0.0

    @property
    def guide(self) -> str | None:
        return self.way if self.way in ("class", "text") else None

    @property
    def is_led(self) -> bool:
        """Whether it is asked for something that its pictures can agree with."""
        return self.told in ("class", "text") or self.guide is not None

    def sampling(self, base: Sections) -> DiffusionSampling:
        more: Sections = {self.way: self.scale} if self.way.endswith("guidance") else {}
        if self.guide is not None:
            more = {"guide": {"scale": self.scale}}
        if self.way == "repaint":
            more = {"repaint": int(self.scale)}
        return DiffusionSampling.model_validate(base | more)


def points() -> Iterator[Point]:
    """All that is measured of whole pictures, without guidance first."""
    guide, free, auto = (1, 2, 4, 8, 16), (0.5, 1, 2, 4), (0.5, 1, 2)
    scales: dict[tuple[str, str], tuple[float, ...]] = {
        ("nothing", "class"): guide,
        ("nothing", "text"): guide,
        ("nothing", "autoguidance"): auto,
        ("class", "guidance"): free,
        ("class", "class"): guide,
        ("class", "autoguidance"): auto,
        ("text", "guidance"): free,
        ("text", "text"): guide,
    }
    yield from (Point(told) for told in ("nothing", "class", "text"))
    yield from (Point(told, way, scale) for (told, way), some in scales.items() for scale in some)


FILLS = (Point("nothing", "repaint", 1), Point("nothing", "repaint", 5), Point("the rest"))
"""Known pixels in place of the guess, once and five times a step (RePaint); and a generator that sees them."""
SHOWN = (
    Point("nothing"),
    Point("nothing", "class", 2),
    Point("nothing", "class", 8),
    Point("class"),
    Point("class", "guidance", 2),
    Point("text"),
    Point("text", "guidance", 2),
    Point("text", "text", 2),
)


class GuidanceStudy:
    """Trains what is sampled, samples it and measures."""

    def __init__(self, plan: Plan, seed: int) -> None:
        if not Path(plan.source).exists():
            plan.workspace.mkdir(parents=True, exist_ok=True)
            make = ["examples/captioned_digits.py", plan.source, "--captioned", "0.9"]
            subprocess.run([sys.executable, *make], check=True)
        self.plan, self.seed, self.runner = plan, seed, Runner(plan)
        self.sections, self.scratch = self.runner.sections, Path(tempfile.mkdtemp())
        self.sections["encoder"]["train"] |= {"steps": 20, "warmup_steps": 2}  # nothing here is told a representation
        self.made = {stage: self._run(stage) for stage in ("collect", "encoder", "codec", "text", "encode")}
        self.codec, self.text = load_codec(self.made["codec"]), load_text(self.made["text"])

    def _run(self, stage: str, section: Sections | None = None) -> StoredArtifact:
        run = self.runner.run(stage, section)
        (folder := self.scratch / run.digest).mkdir(exist_ok=True)
        return StoredArtifact(self.runner.project.store, run, folder)

    @cached_property
    def generators(self) -> dict[str, StoredArtifact]:
        found = {}
        for told, conditions in TOLD.items():
            section = seeded(self.sections["pixels"], self.seed) | {"earlier": EARLIER}
            section["model"]["conditions"] = conditions
            section["preview"] = copy.deepcopy(section["preview"]) | {"every": section["train"]["steps"], "n": 4}
            found[told] = self._run("pixels", section)
        return found

    @cached_property
    def guides(self) -> dict[str, StoredArtifact]:
        pixels, found = self.sections["pixels"], {}
        for what in ("class", "text"):
            train = pixels["train"] | {"steps": GUIDE_STEPS, "batch_size": GUIDE_BATCH}
            model = GUIDE | {"schedule": pixels["model"]["schedule"], "recognizes": what}
            section = seeded({"numerics": 1, "model": model, "train": train}, self.seed)
            found[what] = self._run("guide", section)
        return found

    @cached_property
    def asked(self) -> tuple[Batch, np.ndarray]:
        """What each captioned test picture asks for, its target among it, and its class."""
        test = open_images(self.made["collect"], self.plan.source, base_only=False).split("test")
        captions, labels = test.column("caption"), labels_of(test)
        rows = np.array([i for i, given in enumerate(captions) if given and labels[i] >= 0])
        target = self.codec.encode(to_float(test.load(rows, self.codec.spec.image_px)))
        named = {"class": torch.from_numpy(labels[rows]).long(), "target": target}
        return named | self.text.rows([captions[i][0] for i in rows]), labels[rows]

    def sampled(self, point: Point, asked: Batch) -> np.ndarray:
        """One picture for each row that is asked for. Shapes: -> (n, px, px, 3) uint8."""
        guide = None if point.guide is None else load_guide(self.guides[point.guide])
        n, how = len(asked["class"]), point.sampling(self.sections["sample"]["pixels"])
        sampling = SystemSampling(seed=0, batch_size=n, rdm=None, pixels=how)
        pixels = load_pixels(self.generators[point.told])
        system = System(rdm=None, pixels=pixels, codec=self.codec, sampling=sampling, guide=guide)
        fields = ("class",) if "class" in (point.told, point.way) else ("text", "text.mask")
        given = {name: asked[name] for name in fields} if point.is_led else {}
        return to_uint8(system.images(system.rows(Request(n=n, seed=self.seed), range(n), given=given)))

    def filled(self, point: Point, asked: Batch) -> tuple[np.ndarray, float]:
        """The pictures with their middle made anew, and the share of known pixels that are theirs, bit by bit."""
        target, how = asked["target"], point.sampling(self.sections["sample"]["pixels"])
        where = torch.ones(len(target), *target.shape[2:], dtype=torch.bool)
        start = (target.shape[-1] - HOLE) // 2
        where[:, start : start + HOLE, start : start + HOLE] = False
        pixels = load_pixels(self.generators[point.told])
        rng = image_rng(self.seed, 0, len(target), stream="pixels")
        made = pixels.sample({KNOWN: target, mask_name(KNOWN): where}, how, rng)
        same = (made == target)[where[:, None].expand_as(made)].double().mean()
        return to_uint8(self.codec.decode(made)), float(same)

    @cached_property
    def judge(self) -> tuple[Judge, np.ndarray, np.ndarray, Sections]:
        """Judge, its features of as many training pictures and of the test split, and how well it knows the latter."""
        params = EvaluateParams.model_validate(self.sections["evaluate"])
        index, px = open_images(self.made["collect"], self.plan.source, base_only=False), self.codec.spec.image_px
        train, test = (RealImages(index.split(name), px) for name in ("train", "test"))
        judge, features = find_judge(
            params.features,
            train,
            list(index.classes or ()),
            params.train,
            lone_worker(torch.device("cpu"), self.scratch),
            batch_size=params.batch_size,
            n_held_out=len(test),
            seed=params.seed,
        )
        seen, named = seen_by(judge, test.batches(params.batch_size))
        facts = {"accuracy": float((named == labels_of(test)).mean()), "n_test": len(test)}
        chosen = features[np.random.default_rng(0).permutation(len(features))[: len(self.asked[1])]]
        return judge, chosen, seen, facts | self._compared(chosen, seen)

    def _compared(self, features: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
        precision, recall = precision_recall(held_out, features, k=self.sections["evaluate"]["k_neighbors"])
        return {"precision": precision, "recall": recall, "fd": frechet(features, held_out)}

    def measured(self, point: Point) -> dict[str, float]:
        """Kept in the workspace by what it was made of."""
        made_of = [self.generators[point.told].digest, *([self.guides[point.guide].digest] if point.guide else ())]
        what = [asdict(point), self.seed, made_of, self.sections["evaluate"], self.sections["sample"]]
        path = self.plan.workspace / f"points/{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]}.json"
        if path.is_file():
            return json.loads(path.read_text())  # type: ignore[no-any-return]
        started, (asked, labels) = time.monotonic(), self.asked
        fills = point in FILLS
        images, same = self.filled(point, asked) if fills else (self.sampled(point, asked), 0.0)
        judge, _, held_out, _ = self.judge
        features, named = seen_by(judge, [images])
        found = self._compared(features, held_out)
        if fills or point.is_led:
            found["agreement"] = float((named == labels).mean())
        if fills:
            found["known_kept"] = same
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found))
        print(f"seed {self.seed}, {point}: {found}, {time.monotonic() - started:.1f} s", flush=True)
        return found

    def pictures(self) -> tuple[bytes, bytes]:
        """Two test pictures of each class asked of each way, a row for each; and filled, below what is known."""
        asked, labels = self.asked
        rows = np.concatenate([np.flatnonzero(labels == k)[:2] for k in range(int(labels.max()) + 1)])
        some = {name: values[torch.from_numpy(rows)] for name, values in asked.items()}
        real = to_uint8(self.codec.decode(some["target"]))
        holed, start = real.copy(), (real.shape[1] - HOLE) // 2
        holed[:, start : start + HOLE, start : start + HOLE] = 128
        filled = [self.filled(point, some)[0] for point in FILLS]
        every = ([self.sampled(point, some) for point in SHOWN], [holed, *filled, real])
        led, holes = (png_bytes(grid(np.concatenate(blocks), columns=len(rows))) for blocks in every)
        return led, holes


def labels_of(images: ImageIndex | RealImages) -> np.ndarray:
    """Of every picture. Raises: ValueError without labels."""
    if images.labels is None:
        raise ValueError("the collection has no labels")
    return images.labels


def seen_by(judge: Judge, batches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Features, and the class that each picture is taken for. Raises: ValueError for a judge that knows no labels."""
    features, probabilities = judge.see(batches)
    if probabilities is None:
        raise ValueError("the judge learned no labels")
    return features, probabilities.argmax(1)


def main(arguments: Sequence[str]) -> int:
    """Writes docs/results/guidance-pixels.md with its pictures and numbers."""
    torch.set_num_threads(1)
    started, rows, seeds = time.monotonic(), list[Row](), [int(seed) for seed in arguments] or [0]
    facts, pictures = dict[str, float](), (b"", b"")
    for seed in seeds:
        study = GuidanceStudy(PLAN, seed)
        for point in (*points(), *FILLS):
            rows.append(Row((point.told, point.way, point.scale), seed, study.measured(point)))
        if seed == seeds[0]:
            facts, pictures = study.judge[3], study.pictures()
    page = write_page(Rows(rows), facts, pictures, PLAN.out, minutes=(time.monotonic() - started) / 60)
    print(f"wrote {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
