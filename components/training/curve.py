"""The training curve: sums stay on the device and are read once per interval."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from components.base import Metrics
from components.errors import DivergedError
from components.training.distributed import sum_ranks
from components.training.worker import Worker


class Curve:
    """Means over log intervals of the scalars of each step, over the rows of all ranks."""

    def __init__(self, worker: Worker) -> None:
        self.records: list[dict[str, float]] = []
        self._worker = worker
        self._names: list[str] = []
        self._sums = torch.zeros(0, dtype=torch.float64, device=worker.device)
        self._first_bad = torch.tensor(math.inf, dtype=torch.float64, device=worker.device)
        self._n_steps = 0

    def add(self, done: int, scalars: Mapping[str, Tensor], share: float) -> None:
        """The scalars of step number `done`; `share`: the part of the batch that this rank's means are over."""
        values = torch.stack([scalar.detach().to(torch.float64) for scalar in scalars.values()]) * share
        if not self._names:
            self._names, self._sums = list(scalars), torch.zeros_like(values)
        self._sums += values
        self._n_steps += 1
        bad = ~torch.isfinite(values).all()
        self._first_bad = torch.where(bad, self._first_bad.clamp(max=done), self._first_bad)

    def settle(self, last_good: int | None) -> None:
        """Move the interval's sums to rank 0. Collective. Raises: DivergedError if they are not finite."""
        total = sum_ranks(self._worker, self._sums)
        self._sums = total if self._worker.rank == 0 else torch.zeros_like(total)
        bad = [name for name, value in zip(self._names, total.tolist(), strict=True) if not math.isfinite(value)]
        if bad:
            if self._worker.world_size > 1:
                dist.all_reduce(self._first_bad, dist.ReduceOp.MIN)
            raise diverged(f"{', '.join(bad)} stopped being finite", int(self._first_bad.item()), last_good)

    def close(self, done: int, extra: Metrics, last_good: int | None) -> Metrics:
        """End the interval at step number `done`: append its record on rank 0 and return the means. Collective."""
        self.settle(last_good)
        means = {name: total / self._n_steps for name, total in zip(self._names, self._sums.tolist(), strict=True)}
        self.records.append({"step": done, **means, **extra})
        self._sums, self._n_steps = torch.zeros_like(self._sums), 0
        return means | extra

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, after settle(), as JSON holds it; rank 0 has the sums."""
        return {"records": self.records, "names": self._names, "sums": self._sums.tolist(), "n_steps": self._n_steps}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from state(); the sums go to rank 0 alone."""
        self.records, self._names, self._n_steps = list(state["records"]), list(state["names"]), state["n_steps"]
        sums = torch.tensor(state["sums"], dtype=torch.float64, device=self._worker.device)
        self._sums = sums if self._worker.rank == 0 else torch.zeros_like(sums)


def diverged(what: str, step: int, last_good: int | None) -> DivergedError:
    """The error that names the step and what can be gone back to."""
    good = "there is no checkpoint" if last_good is None else f"the last good checkpoint is of step {last_good}"
    fix = "lower optimizer.lr, set clip_norm, or lengthen warmup_steps"
    return DivergedError(f"training diverged: {what}", got=f"step {step}; {good}", expected="finite numbers", fix=fix)
