"""One optimizer step of the global batch, on one rank or over several."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from components.base import Batch
from components.training.config import TrainConfig
from components.training.optim import adamw, clip_gradients, lr_at, parameters_of, set_lr
from components.training.parallel import Passes
from components.training.trainable import Trainable
from components.training.worker import Worker


class Stepper:
    """The optimizers of a trainable and how to step them; the gradient is that of the mean over the global batch."""

    def __init__(self, trainable: Trainable, config: TrainConfig, worker: Worker) -> None:
        self.trainable, self.config = trainable, config
        self.optimizers = [adamw(group, config.optimizer) for group in trainable.optimizer_parameters()]
        self._passes = Passes(trainable, config, worker)
        rows = worker.rows(config.batch_size)
        self.share = (rows.stop - rows.start) / config.batch_size

    def __call__(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Take step 0 <= step < steps; returns what there is to report, on the device."""
        scalars = dict[str, Tensor]()
        for which, optimizer in enumerate(self.optimizers):
            self._require_grad_of(which)
            optimizer.zero_grad()
            means = self._passes(step, which, batch)
            norm = clip_gradients(parameters_of(optimizer), self.config.clip_norm)
            set_lr(optimizer, lr_at(self.config, step))
            optimizer.step()
            suffix = f"_{which}" if which else ""
            scalars |= {f"loss{suffix}" if name == "loss" else name: mean for name, mean in means.items()}
            scalars |= {} if norm is None else {f"grad_norm{suffix}": norm}
        self._require_grad_of(None)
        self.trainable.after_step(step + 1, self.config.steps)
        return scalars

    def _require_grad_of(self, which: int | None) -> None:
        """Freeze the parameters of every other optimizer; None thaws all."""
        if len(self.optimizers) > 1:
            for i, optimizer in enumerate(self.optimizers):
                for parameter in parameters_of(optimizer):
                    parameter.requires_grad_(which in (None, i))

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Are all trained weights finite? Reads the device; the same on every rank."""
        norms = [nn.utils.get_total_norm(parameters_of(o)) for o in self.optimizers]
        return bool(torch.isfinite(torch.stack(norms)).all().item())

    def state(self) -> dict[str, Any]:
        return {"model": self.trainable.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from state()."""
        self.trainable.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
