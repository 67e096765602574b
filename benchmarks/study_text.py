"""`make study-text`: where should a text prior start, and how many captions does it need?

python -m benchmarks.study_text [SEED …]      seed 0 unless some are named

Priors of captioned digits with one network, one number of training steps, and their own place to start from:

    N(0, I)       RCG's
    k = 1         one Gaussian: standardized representations, as in unCLIP; the row to beat
    k = 16, 128   so many Gaussians, one of which the text chooses (Corgi); learnable: trained on
    projection    no diffusion: one point for each caption (ECLIPSE)

each sampled in 4, 8, 16 and 64 steps; then k = 16 of fewer captions, and with a pixel generator of other pictures.
What is drawn of the captions of held-out pictures is painted by one pixel generator, which reads representations
alone. Two linear probes on pixels of real training pictures, one blind to color and one blind to form, say which
digit and which ink it is. Every training is a run of the pipeline's stages, kept in the store: killed and started
again, it goes on.
"""

import copy
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.study import PLANS, Runner, Sections, seeded
from benchmarks.study_rows import Row, Rows
from benchmarks.study_text_results import MANY, write_page
from components.base import Batch
from components.cache.reader import CacheSplit, open_cache
from components.fields import of_fields
from components.files import file_sha256
from components.generators.base import Generator
from components.generators.sampling import DiffusionSampling, DirectSampling
from components.images.captioned import captioned_rows
from components.images.pictures import png_bytes, to_uint8
from components.metrics.frechet import frechet
from components.metrics.probe import linear_probe
from components.pixels import load_pixels
from components.rdm import load_rdm
from components.rng import image_rng
from components.spacing import evenly_spaced
from examples.captioned_digits import INKS
from flows.pipeline.params import check_params, read_yaml
from flows.runs.stored import StoredArtifact

WORKSPACE, OUT = Path(".rcg/study-text"), Path("docs/results")
BUDGET = {"encoder": 700, "rdm": 2000, "pixels": 1500}
"""Training steps: fewer than those of the preset."""
CAPTIONED = {"90 %": 0.9, "20 %": 0.2, "5 %": 0.05}
SHOWN = ("k = 1", MANY, "k = 128", "projection")
N_PROMPTS, N_EACH = 8, 3
STEPS, FEW = (1, 2, 4, 8, 16, 64), 8
PREDICTED = {"by": "predicted", "field": "text"}


def gaussians(k: int, *, learnable: bool = False) -> Sections:
    choice = PREDICTED if k > 1 else {"by": "frequencies"}
    return {"kind": "gaussians", "k": k, "kappa": 1.0, "learnable": learnable, "index": k > 1, "choice": choice}


PRIORS: dict[str, Sections | None] = {
    "N(0, I)": {"kind": "normal"},
    "k = 1": gaussians(1),
    "k = 16": gaussians(16),
    "k = 128": gaussians(128),
    "k = 128, learnable": gaussians(128, learnable=True),
    "projection": None,
}


def how(steps: int) -> DiffusionSampling:
    return DiffusionSampling(kind="diffusion", sampler="ddim", steps=steps, spacing="trailing", eta=0.0, guidance=0.0)


PAINT = how(10).model_copy(update={"sampler": "dpm_solver_2m"})
NO_NOISE = DirectSampling(kind="direct", guidance=0.0)


class Collection:
    """Digits of which a share has captions, and what the stages make of them."""

    def __init__(self, share: str, encoder: Path | None = None) -> None:
        root = WORKSPACE / share.removesuffix(" %")
        folder = root / "pictures"
        if not folder.exists():
            make = ["examples/captioned_digits.py", str(folder), "--captioned", str(CAPTIONED[share])]
            root.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, *make], check=True)
        plan = replace(
            PLANS["digits"], preset=Path("presets/digits-text.yaml"), source=str(folder), workspace=root, seeds=()
        )
        self.runner = Runner(plan)
        for stage, steps in BUDGET.items():
            self.runner.sections[stage]["train"]["steps"] = steps
        if encoder is not None:
            section = self.runner.sections["encoder"]
            section |= {"train": None, "contrastive": None}
            section["model"]["weights"] = {"uri": str(encoder.resolve()), "sha256": file_sha256(encoder)}
        for stage in ("collect", "encoder", "codec", "text", "encode"):
            made = self.made(stage)
            if stage == "encoder":
                self.encoder = made.path("weights.safetensors")
        self.cache = open_cache(made)

    def made(self, stage: str, section: Sections | None = None) -> StoredArtifact:
        run = self.runner.run(stage, section)
        return StoredArtifact(self.runner.project.store, run, WORKSPACE / "scratch")

    def prior(self, name: str, seed: int, missing: str = "null") -> tuple[Generator, dict[str, float]]:
        section, base = seeded(self.runner.sections["rdm"], seed), PRIORS[name]
        if base is None:
            other = check_params(read_yaml(Path("presets/digits-text-projection.yaml")), name).model_dump(mode="json")
            section |= {"model": other["rdm"]["model"], "check": other["rdm"]["check"]}
        else:
            section["model"] |= {"base": base}
            section["check"] = {"n": 300, "batch_size": 300, "sampling": how(FEW).model_dump(mode="json")}
        section["model"]["conditions"][0]["missing"] = missing
        return load_rdm(self.made("rdm", section)), self.runner.metrics("rdm")

    def painter(self, seed: int) -> Generator:
        section = seeded(self.runner.sections["pixels"], seed)
        section["preview"] = copy.deepcopy(section["preview"]) | {"every": BUDGET["pixels"], "n": 4}
        return load_pixels(self.made("pixels", section))


def inks(captions: Sequence[Sequence[str] | None]) -> Tensor:
    """Number of the ink that the captions of each picture name."""
    named = (re.search("|".join(INKS), some[0] if some else "") for some in captions)
    return torch.tensor([-1 if ink is None else list(INKS).index(ink[0]) for ink in named])


def form(images: Tensor) -> Tensor:
    return images.double().amax(1).flatten(1)


def color(images: Tensor) -> Tensor:
    sums = images.double().sum((2, 3))
    return sums / sums.sum(1, keepdim=True).clamp(min=1e-9)


@dataclass(frozen=True)
class Judge:
    """What the pictures show, by probes that have seen real training pictures with captions alone."""

    digit: Callable[[Tensor], Tensor]
    ink: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, training: CacheSplit) -> "Judge":
        rows = np.arange(len(training))
        images, fit = training.field("target", rows), {"weight_decay": 1e-5, "iterations": 300}
        digits, ink = torch.from_numpy(training.labels), inks(training.captions(rows))
        return cls(linear_probe(form(images), digits, 10, **fit), linear_probe(color(images), ink, len(INKS), **fit))

    def right(self, images: Tensor, digits: Tensor, ink: Tensor) -> dict[str, float]:
        digit_right, ink_right = self.digit(form(images)) == digits, self.ink(color(images)) == ink
        found = {"digit": digit_right, "ink": ink_right, "both": digit_right & ink_right}
        return {name: float(right.double().mean()) for name, right in found.items()}


def draw(prior: Generator, given: Batch, n: int, steps: int | None, seed: int) -> Tensor:
    """One representation for each row; without diffusion where there are no steps."""
    return prior.sample(given, NO_NOISE if steps is None else how(steps), image_rng(seed, 0, n, stream="rdm"))


def paint(z: Tensor, painter: Generator, seed: int) -> Tensor:
    return painter.sample({"representation": z}, PAINT, image_rng(seed, 0, len(z), stream="pixels"))


class Examination:
    """The captions of held-out pictures, and how well what is made of them shows what they say."""

    def __init__(self, collection: Collection) -> None:
        training = collection.cache.training(("target", "representation", "text")).having(("text",))
        held_out = collection.cache.held_out("test", ("target", "representation", "text")).having(("text",))
        rows = np.arange(len(held_out))
        self.batch, self.judge = held_out.rows(rows), Judge.of(training)
        self.captions = [str((given or [""])[0]) for given in held_out.captions(rows)]
        self.asked = torch.from_numpy(held_out.labels), inks(held_out.captions(rows))
        seen = training.field("representation", np.arange(len(rows)))
        z = self.batch["representation"]
        self.real = self.judge.right(self.batch["target"], *self.asked)
        self.real |= {"fd": frechet(seen.numpy(), z.numpy()), "unrelated": self._unrelated(self.batch["target"])}

    def _unrelated(self, images: Tensor) -> float:
        """What pictures of other captions score."""
        digits, ink = self.asked
        return mean(self.judge.right(images, digits.roll(i), ink.roll(i))["both"] for i in range(1, 40))

    def own(self, painter: Generator, seed: int) -> dict[str, float]:
        """What the representations of the pictures themselves lead to."""
        return self.judge.right(paint(self.batch["representation"], painter, seed), *self.asked)

    def of(self, prior: Generator, painter: Generator, steps: int | None, seed: int) -> dict[str, float]:
        given, n = of_fields(self.batch, prior.given), len(self.asked[0])
        z, again = (draw(prior, given, n, steps, s) for s in (seed, seed + 1000))
        apart = 1 - float(torch.cosine_similarity(z, again).mean())
        cosine = float(torch.cosine_similarity(z, self.batch["representation"]).mean())
        fd = frechet(z.numpy(), self.batch["representation"].numpy())
        return self.judge.right(paint(z, painter, seed), *self.asked) | {"fd": fd, "diversity": apart, "cosine": cosine}

    def prompts(self, priors: Mapping[str, Generator], painter: Generator) -> bytes:
        """Some captions over a held-out picture that each is of, and three paintings by each of the priors."""
        rows = torch.from_numpy(evenly_spaced(len(self.captions), N_PROMPTS))
        blocks = [to_uint8(self.batch["target"][rows].float() / 255)[:, None]]
        for name, prior in priors.items():
            given = {field: values[rows] for field, values in of_fields(self.batch, prior.given).items()}
            steps = None if PRIORS[name] is None else FEW
            each = [paint(draw(prior, given, len(rows), steps, seed), painter, seed) for seed in range(N_EACH)]
            blocks.append(np.stack([to_uint8(images.float() / 255) for images in each], 1))
        columns = np.concatenate(blocks, 1)
        return png_bytes(captioned_rows([(self.captions[int(i)], row) for i, row in zip(rows, columns, strict=True)]))


def run_study(seeds: Sequence[int]) -> tuple[Rows, dict[str, float], bytes]:
    """All rows, what real pictures score, and the sheet of prompts of the first seed."""
    every = Collection("90 %")
    examine, rows = Examination(every), list[Row]()
    others = {share: Collection(share, every.encoder) for share in list(CAPTIONED)[1:]}
    print("real", examine.real, flush=True)

    def add(name: str, seed: int, prior: Generator, painter: Generator, steps: int | None, **more: float) -> None:
        rows.append(Row((name, steps), seed, examine.of(prior, painter, steps, seed) | more))
        print(rows[-1], flush=True)

    for seed in seeds:
        painter, priors = every.painter(seed), dict[str, Generator]()
        rows.append(Row(("own representation", None), seed, examine.own(painter, seed)))
        for name, base in PRIORS.items():
            priors[name], told = every.prior(name, seed)
            start = told.get("chain_cosine_start_real")
            for steps in STEPS if base is not None else (None,):
                add(name, seed, priors[name], painter, steps, **({} if start is None else {"start": start}))
        for share, collection in others.items():
            prior, told = collection.prior(MANY, seed, missing="skip")
            add(f"{MANY}, {share} captioned", seed, prior, painter, FEW, captioned=told["n_train"])
        add(f"{MANY}, language-free", seed, priors[MANY], others["5 %"].painter(seed), FEW)
        if seed == seeds[0]:
            sheet = examine.prompts({name: priors[name] for name in SHOWN}, painter)
    return Rows(rows), examine.real, sheet


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.WARNING)
    started, seeds = time.monotonic(), [int(seed) for seed in arguments] or [0]
    rows, real, sheet = run_study(seeds)
    raw: dict[str, Any] = {"budget": BUDGET, "real": real, "rows": rows.records("name", "steps")}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "text.json").write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n")
    (OUT / "text-prompts.png").write_bytes(sheet)
    print(f"wrote {write_page(rows, real, BUDGET, OUT, minutes=(time.monotonic() - started) / 60)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
