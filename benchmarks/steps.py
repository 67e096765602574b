"""How few steps representations need: Frechet distance over the number of steps, sampler by sampler.

    python -m benchmarks.steps [PROJECT]

PROJECT: a folder whose `rcg repro` has trained an RDM; without one, an RDM is trained on a made-up mixture in less than
a minute. The distance is to the representations that the RDM was trained on. Writes results/steps.json and steps.png.
"""

import datetime
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.table import RESULTS
from components.diffusion.schedule import ScheduleConfig, valid_counts
from components.generators.base import Generator
from components.generators.config import GeneratorData
from components.generators.sampling import DiffusionSampling
from components.metrics.frechet import frechet
from components.nn.vit import seeded_init
from components.rdm import RdmConfig, load_rdm
from components.rng import derive_seed, image_rng
from components.target import TargetSpec
from components.training.checkpoint import lone_worker
from components.training.config import EmaConfig, OptimConfig, TrainConfig
from components.training.generator import GeneratorTrainable
from components.training.loop import train

COUNTS = (2, 4, 5, 8, 10, 15, 20, 25, 30, 50, 100, 250)
PUBLISHED = DiffusionSampling(kind="diffusion", sampler="ddim", steps=250, eta=1.0, spacing="reference", guidance=0.0)
SAMPLERS: dict[str, dict[str, Any]] = {
    "ddim, eta 1, reference": {"sampler": "ddim", "eta": 1.0, "spacing": "reference"},
    "ddim, eta 1": {"sampler": "ddim", "eta": 1.0, "spacing": "trailing"},
    "ddim, eta 0": {"sampler": "ddim", "eta": 0.0, "spacing": "trailing"},
    "ancestral": {"sampler": "ancestral", "eta": 0.0, "spacing": "trailing"},
    "dpm-solver++ 2m": {"sampler": "dpm_solver_2m", "eta": 0.0, "spacing": "trailing"},
}
FEW = "dpm-solver++ 2m"
_N_DRAWN, _BATCH, _SLACK = 2000, 1000, 1.02


@dataclass(frozen=True)
class Subject:
    """A trained RDM and the representations it was trained on."""

    name: str
    rdm: Generator
    real: np.ndarray
    floor: float
    """Distance of held-out representations: what a perfect RDM would be near."""


def from_project(root: Path, scratch: Path) -> Subject:
    """The RDM of a project whose stages have run."""
    from benchmarks.projects import artifact
    from components.cache.reader import open_cache

    rdm, encode = (artifact(root, stage, scratch) for stage in ("rdm", "encode"))
    cache = open_cache(encode)
    seen, held_out = cache.training(("representation",)), cache.held_out("val", ("representation",))
    real, other = (split.rows(np.arange(len(split)))["representation"].numpy() for split in (seen, held_out))
    return Subject(root.resolve().name, load_rdm(rdm), real, frechet(real, other))


def made_up(scratch: Path) -> Subject:
    """Twelve tilted clusters in 32 dimensions, each row standardized, and a small RDM trained on them."""
    dim, n = 32, 6000
    rng = torch.Generator().manual_seed(0)
    centers, tilts = torch.randn(12, dim, generator=rng), torch.randn(12, 3, dim, generator=rng)
    which = torch.randint(12, (n,), generator=rng)
    spread = (torch.randn(n, 3, 1, generator=rng) * tilts[which]).sum(1)
    z = centers[which] + 0.4 * spread + 0.1 * torch.randn(n, dim, generator=rng)
    z = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)
    config = RdmConfig(
        kind="residual_mlp",
        dim=dim,
        width=192,
        depth=3,
        time_dim=64,
        conditions=(),
        context_dim=1,
        prediction="x0",
        min_snr=None,
        variance="fixed",
        schedule=ScheduleConfig(kind="sqrt_linear", n_times=1000),
    )
    target = TargetSpec(space="pixels", shape=(1, 8, 8), dtype="uint8", n_codes=None, image_px=8)
    with seeded_init(0):
        rdm = config.build(GeneratorData(target=target, dim=dim, classes=None))
        trainable = GeneratorTrainable(rdm, EmaConfig(decay=0.995, rule="ramped"))
    half = z[: n // 2]
    optimizer = OptimConfig(kind="adamw", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0, decay="all")
    run = TrainConfig(
        steps=1000,
        batch_size=128,
        seed=0,
        optimizer=optimizer,
        warmup_steps=50,
        schedule="cosine",
        clip_norm=None,
        precision="fp32",
        log_every=500,
    )
    place = lone_worker(torch.device("cpu"), scratch)
    train(trainable, lambda rows, _: {"representation": half[rows]}, len(half), run, place)
    real, other = half.numpy(), z[n // 2 :].numpy()
    return Subject("a made-up mixture in 32 dimensions", trainable.result.eval(), real, frechet(real, other))


def drawn(rdm: Generator, how: DiffusionSampling) -> np.ndarray:
    """The same noise for every sampler."""
    parts: list[Tensor] = []
    for start in range(0, _N_DRAWN, _BATCH):
        rng = image_rng(derive_seed("steps"), start, start + _BATCH, stream="rdm")
        parts.append(rdm.sample({}, how, rng))
    return torch.cat(parts).numpy()


def curves(subject: Subject) -> dict[str, dict[int, float]]:
    """{sampler: {steps: distance}}, for the counts that the sampler's spacing can honor."""
    found: dict[str, dict[int, float]] = {}
    T = subject.rdm.config.schedule.n_times
    for name, options in SAMPLERS.items():
        valid = set(valid_counts(T, options["spacing"]))
        found[name] = {
            n: frechet(
                drawn(subject.rdm, DiffusionSampling(kind="diffusion", steps=n, guidance=0.0, **options)), subject.real
            )
            for n in COUNTS
            if n in valid
        }
        print(f"{name:<24}" + " ".join(f"{n}: {fd:.3g}" for n, fd in found[name].items()), flush=True)
    return found


def fewest(found: dict[str, dict[int, float]]) -> int | None:
    """Least steps of the better sampler whose distance is that of the published one, within two percent."""
    wanted = found["ddim, eta 1, reference"][PUBLISHED.steps] * _SLACK
    return min((n for n, fd in found[FEW].items() if fd <= wanted), default=None)


def plot(subject: Subject, found: dict[str, dict[int, float]], path: Path) -> None:
    """Distance over steps, both logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in found.items():
        axes.loglog(list(curve), list(curve.values()), "o-", label=name, linewidth=1.4, markersize=4)
    axes.axhline(subject.floor, color="#888888", linestyle=":", label="held-out representations")
    axes.set(xlabel="steps", ylabel="Frechet distance of representations", title=subject.name)
    axes.set_xticks(COUNTS, [str(n) for n in COUNTS])
    axes.minorticks_off()
    axes.legend()
    canvas.print_png(str(path))  # type: ignore[no-untyped-call]


def main(arguments: list[str]) -> int:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        subject = from_project(Path(arguments[0]), scratch) if arguments else made_up(scratch)
        found = curves(subject)
    few = fewest(found)
    RESULTS.mkdir(exist_ok=True)
    document = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rdm": subject.name,
        "n_drawn": _N_DRAWN,
        "n_real": len(subject.real),
        "floor": subject.floor,
        "distances": found,
        "few_steps": few,
        "published_steps": PUBLISHED.steps,
    }
    (RESULTS / "steps.json").write_text(json.dumps(document, indent=1) + "\n")
    plot(subject, found, RESULTS / "steps.png")
    saving = "no count up to 250" if few is None else f"{few} steps, {PUBLISHED.steps / few:.1f} times fewer"
    print(f"{FEW} is as near as {PUBLISHED.steps} published DDIM steps with: {saving}; floor {subject.floor:.3g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
