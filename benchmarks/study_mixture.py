"""Does a closer start help a learned denoiser? Shifted diffusion on points whose modes are known.

python -m benchmarks.study_mixture [SEED …]     seeds 0, 1 and 2 unless some are named; about ten CPU-minutes

8 clusters of 4 modes each in 16 dimensions. One network and one number of updates for every start: N(0, I), one
Gaussian (unCLIP's standardized representations), and one for each cluster (Corgi's shifted diffusion), each told the
cluster or not; and one for each row, read off the cluster (CPD-FM). Two distances: how far samples are from the
nearest mode, in those of the data, and how far the modes' frequencies are from equal (total variation). With an exact
denoiser: tests/unit/components/diffusion/test_bases.py.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks.study_rows import Claim, Row, Rows, claims_table, measured, paragraph, table, title
from components.base import Batch
from components.fields import FieldSpec
from components.generators.config import GeneratorData
from components.generators.diffusion import Diffusion
from components.generators.sampling import DiffusionSampling
from components.nn.vit import seeded_init
from components.rdm import RdmConfig
from components.rng import BatchRng, RowRng
from components.target import TargetSpec

OUT = Path("docs/results")
K, N_MODES, D, POINT = 8, 4, 16, 0.03
N_TRAIN, N_SAMPLES, UPDATES, BATCH, LR = 8192, 2000, 3000, 256, 2e-3
STEPS = (2, 4, 8, 16, 64)
TOLD = {"kind": "class", "port": "vector", "drop_prob": 0.0, "missing": "skip"}
AS_VECTOR = {"kind": "vector", "field": "cluster", "port": "vector", "drop_prob": 0.0, "missing": "skip"}
CLUSTER = FieldSpec(name="cluster", dtype="float32", shape=(K,))


def gaussians(k: int, by: str) -> dict[str, Any]:
    return {"kind": "gaussians", "k": k, "kappa": 1.0, "learnable": False, "index": k > 1, "choice": {"by": by}}


STARTS: dict[tuple[str, str], tuple[dict[str, Any], bool]] = {
    ("N(0, I)", ""): ({"kind": "normal"}, False),
    ("N(0, I)", "yes"): ({"kind": "normal"}, True),
    ("k = 1", ""): (gaussians(1, "frequencies"), False),
    ("k = 1", "yes"): (gaussians(1, "frequencies"), True),
    ("k = 8", ""): (gaussians(K, "frequencies"), False),
    ("k = 8", "yes"): (gaussians(K, "class"), True),
    ("conditional", "yes"): ({"kind": "conditional", "field": "cluster", "kappa": 1.0}, True),
}
"""Start, and whether the network is told the cluster -> base distribution, and the same."""


@dataclass(frozen=True)
class Points:
    """Training points of a seed, their clusters, and where the modes are. Shapes: (n, D), (n,), (K * N_MODES, D)."""

    z: Tensor
    cluster: Tensor
    modes: Tensor

    @classmethod
    def drawn(cls, seed: int) -> "Points":
        rng = torch.Generator().manual_seed(seed)
        centers = 1.0 + 0.35 * torch.randn(K, 1, D, generator=rng)
        modes = (centers + 0.12 * torch.randn(K, N_MODES, D, generator=rng)).reshape(-1, D)
        which = torch.randint(len(modes), (N_TRAIN,), generator=rng)
        return cls(modes[which] + POINT * torch.randn(N_TRAIN, D, generator=rng), which // N_MODES, modes)

    def __len__(self) -> int:
        return len(self.z)

    def field(self, name: str, indices: np.ndarray) -> Tensor:
        """As training rows are read."""
        return self.rows(torch.from_numpy(indices))[name]

    def rows(self, at: Tensor) -> Batch:
        cluster = self.cluster[at]
        return {"representation": self.z[at], "class": cluster, "cluster": one_hot(cluster, K).float()}

    def errors(self, z: Tensor) -> dict[str, float]:
        distance, nearest = torch.cdist(z, self.modes).min(1)
        shares = torch.bincount(nearest, minlength=len(self.modes)) / len(z)
        even = 1 / len(self.modes)
        return {"off": float(distance.mean()) / (POINT * D**0.5), "tv": float((shares - even).abs().sum()) / 2}


def trained(points: Points, base: dict[str, Any], *, told: bool, seed: int) -> Diffusion:
    config = RdmConfig.model_validate(
        {
            "kind": "residual_mlp",
            "dim": D,
            "width": 128,
            "depth": 2,
            "time_dim": 64,
            "conditions": [AS_VECTOR if base["kind"] == "conditional" else TOLD] if told else [],
            "context_dim": 64,
            "schedule": {"kind": "linear", "n_times": 1000},
            "prediction": "x0",
            "min_snr": None,
            "variance": "fixed",
            "base": base,
        }
    )
    target = TargetSpec(space="pixels", shape=(1, 8, 8), dtype="uint8", n_codes=None, image_px=8)
    with seeded_init(seed):
        rdm = config.build(GeneratorData(target=target, dim=D, classes=tuple(map(str, range(K))), more=(CLUSTER,)))
    rdm.fit(points, seed)
    optimizer = torch.optim.Adam(rdm.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UPDATES)
    rng = torch.Generator().manual_seed(seed)
    for update in range(UPDATES):
        at = torch.randint(len(points), (BATCH,), generator=rng)
        optimizer.zero_grad()
        rdm.loss(points.rows(at), BatchRng(seed * UPDATES + update, BATCH)).mean().backward()
        optimizer.step()
        schedule.step()
    return rdm.eval()


def sampled(rdm: Diffusion, steps: int) -> Tensor:
    """As many of each cluster, where that is told; a class is otherwise drawn by its frequency."""
    how = DiffusionSampling(kind="diffusion", sampler="ddim", steps=steps, spacing="linspace", eta=0.0, guidance=0.0)
    given = {"cluster": one_hot(torch.arange(N_SAMPLES) % K, K).float()} if "cluster" in rdm.conditions else {}
    return rdm.sample(given, how, RowRng(range(N_SAMPLES)))


def claims(rows: Rows) -> list[Claim]:
    made: list[Claim] = []
    ours, theirs = ("k = 8", "yes"), (("k = 1", ""), ("k = 1", "yes"))
    for steps in (4, 16):
        for metric, name in (("off", "distance to the modes"), ("tv", "frequencies of the modes")):
            one, others = rows.value((*ours, steps), metric), [rows.value((*its, steps), metric) for its in theirs]
            found = f"{one:.3g}; {', '.join(f'{other:.3g}' for other in others)}"
            text = f"{steps} steps, {name}: k = 8 beats k = 1, told the cluster or not"
            made.append((text, found, one < min(others)))
    return made


def main(arguments: Sequence[str]) -> int:
    """Writes docs/results/mixture.md."""
    torch.set_num_threads(1)
    started, rows = time.monotonic(), list[Row]()
    for seed in [int(seed) for seed in arguments] or [0, 1, 2]:
        points = Points.drawn(seed)
        for (start, told), (base, is_told) in STARTS.items():
            rdm = trained(points, base, told=is_told, seed=seed)
            for steps in STEPS:
                rows.append(Row((start, told, steps), seed, points.errors(sampled(rdm, steps))))
                print(rows[-1], flush=True)
        rows.append(Row(("the data", "", 0), seed, points.errors(points.z[:N_SAMPLES])))
    every = Rows(rows)
    lines = [
        *title("Where a learned denoiser starts", "python -m benchmarks.study_mixture", every.seeds),
        "",
        *paragraph(
            f"{K} clusters of {N_MODES} modes in {D} dimensions; a residual MLP of width 128 and depth 2, {UPDATES:,} "
            "updates for each row. Distance to the nearest mode, in that of a Gaussian of the modes' width; total "
            "variation of the modes' frequencies. DDIM, eta 0, times with both ends."
        ),
        *claims_table(claims(every)),
        "",
        *table(
            ("start", "told the cluster", "steps", "distance", "frequencies"),
            [[*map(str, point), *every.cells(point, ("off", "tv"))] for point in every.points],
        ),
        "",
        measured((time.monotonic() - started) / 60),
    ]
    (OUT / "mixture.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
