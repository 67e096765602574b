"""Training a guide beside one that sees no noise, and how well both recognize, by noise level."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from components.base import Batch, Metrics
from components.guides.base import NoiseAware
from components.rng import BatchRng
from components.training.trainable import Trainable

N_QUARTERS = 4


class GuideTrainable(Trainable):
    """A guide, and its twin that is trained on clean samples: from equal weights, on equal rows, each by its optimizer.

    The twin shows what the noise in training is worth.
    """

    def __init__(self, guide: NoiseAware) -> None:
        super().__init__()
        self.guide, self.twin = guide, copy.deepcopy(guide)
        self.twin.clean = True
        self.by_row = guide.by_row

    def forward(self, batch: Batch, rng: BatchRng, which: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:
        module = (self.guide, self.twin)[which]
        return module(batch, rng).mean(), {}

    def optimizer_parameters(self) -> list[list[tuple[str, nn.Parameter]]]:
        named = list(self.named_parameters())
        return [[(name, p) for name, p in named if name.startswith(start)] for start in ("guide.", "twin.")]


@torch.no_grad()
def hits_by_quarter(guide: NoiseAware, batch: Batch, rng: BatchRng, n_noises: int) -> list[float]:
    """Its score of these rows, summed over rows and noises, by quarter of the times, least noise first; a classifier's
    is how often it names the class. Equal draws for equal rng, whatever the guide.
    """
    x0, T = guide.clean_rows(batch), guide.config.schedule.n_times
    hits = [0.0] * N_QUARTERS
    for quarter in range(N_QUARTERS):
        first, stop = T * quarter // N_QUARTERS, T * (quarter + 1) // N_QUARTERS
        for _ in range(n_noises):
            t = first + rng.integers(max(1, stop - first))
            x_t = guide.process.noised(x0, t, rng.normal(*x0.shape[1:]))
            hits[quarter] += float(guide.score(x_t, t, batch[guide.field]).sum())
    return hits


def accuracies(name: str, hits: list[float], n: int) -> Metrics:
    """Shares of n by quarter, under flat names."""
    return {f"{name}_q{quarter}": hit / n for quarter, hit in enumerate(hits, start=1)}
