"""A small generator and the data it trains on: enough to see the training loop's bits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from components.base import Batch
from components.rng import BatchRng
from components.training.checkpoint import NoCheckpoints
from components.training.report import Report
from components.training.worker import CheckpointStore, Worker

N_EXAMPLES = 37


class ToyGenerator(nn.Module):
    """Predicts a row from its noisy version."""

    conditions = ()

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.inner, self.outer = nn.Linear(dim, 16), nn.Linear(16, dim)
        for p in self.parameters():
            nn.init.normal_(p, std=0.2, generator=rng)

    def forward(self, batch: Batch, rng: BatchRng) -> Tensor:
        return self.loss(batch, rng)

    def loss(self, batch: Batch, rng: BatchRng) -> Tensor:
        z = batch["representation"]
        noisy = z + rng.uniform(1) * rng.normal(z.shape[1])
        out: Tensor = (self.outer(torch.tanh(self.inner(noisy))) - z).square().mean(1)
        return out


def fetch(indices: np.ndarray, rng: BatchRng) -> Batch:
    """Row i is a function of i alone; a random view shifts it."""
    rows = torch.stack([torch.sin(torch.arange(1.0, 7.0) * (i + 1)) for i in indices.tolist()])
    return {"representation": rows + 0.1 * rng.integers(3, 1)}


class AdamWByHand:
    """Algorithm 2 of 1711.05101, parameter by parameter, in float64."""

    def __init__(self, parameters: list[nn.Parameter], betas: tuple[float, float], decays: list[float]) -> None:
        self.parameters, self.betas, self.decays, self.n = parameters, betas, decays, 0
        self.weights = [p.detach().double() for p in parameters]
        self.m = [torch.zeros_like(w) for w in self.weights]
        self.v = [torch.zeros_like(w) for w in self.weights]

    def step(self, lr: float) -> None:
        """Uses the gradients of the parameters, then overwrites the parameters."""
        (b1, b2), self.n = self.betas, self.n + 1
        for i, p in enumerate(self.parameters):
            assert p.grad is not None
            g = p.grad.double()
            self.m[i] = b1 * self.m[i] + (1 - b1) * g
            self.v[i] = b2 * self.v[i] + (1 - b2) * g * g
            m_hat, v_hat = self.m[i] / (1 - b1**self.n), self.v[i] / (1 - b2**self.n)
            self.weights[i] -= lr * (m_hat / (v_hat.sqrt() + 1e-8) + self.decays[i] * self.weights[i])
            p.data.copy_(self.weights[i])
            p.grad = None


def worker(
    folder: Path,
    *,
    rank: int = 0,
    world_size: int = 1,
    checkpoints: CheckpointStore | None = None,
    checkpoint_every: int = 1000,
    report: Callable[[Report], None] = lambda _report: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Worker:
    """A worker on the CPU."""
    return Worker(
        rank,
        world_size,
        torch.device("cpu"),
        checkpoints or NoCheckpoints(),
        report,
        folder,
        checkpoint_every,
        1,
        stopping,
    )
