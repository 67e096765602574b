"""One optimizer step of the global batch, on one rank or over several."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from components.base import Batch
from components.rng import BatchRng
from components.training.config import TrainConfig
from components.training.optim import adamw, clip_gradients, lr_at, parameters_of, set_lr
from components.training.order import noise_rng
from components.training.trainable import Trainable
from components.training.worker import Worker


class _Pass(nn.Module):
    """The forward pass of one optimizer: what DDP wraps, so that it synchronizes that optimizer's gradients alone."""

    def __init__(self, trainable: Trainable, which: int) -> None:
        super().__init__()
        self.trainable, self.which = trainable, which

    def forward(self, batch: Batch, rng: BatchRng) -> Any:
        return self.trainable(batch, rng, self.which)


class Stepper:
    """The optimizers of a trainable and how to step them; the gradient is that of the mean over the global batch."""

    def __init__(self, trainable: Trainable, config: TrainConfig, worker: Worker) -> None:
        self.trainable, self.config, self.worker = trainable, config, worker
        named = trainable.optimizer_parameters()
        self.optimizers = [adamw(group, config.optimizer) for group in named]
        self._passes = [self._wrap(which, group) for which, group in enumerate(named)]
        rows = worker.rows(config.batch_size)
        self.share = (rows.stop - rows.start) / config.batch_size

    def _wrap(self, which: int, named: list[tuple[str, nn.Parameter]]) -> nn.Module:
        one = _Pass(self.trainable, which)
        if self.worker.compiled:
            one.compile()
        if self.worker.world_size == 1:
            return one
        own = {id(p) for _, p in named}
        others = [name for name, p in one.named_parameters() if id(p) not in own]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(one, others)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(one, broadcast_buffers=False)

    def __call__(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Take step 0 <= step < steps; returns what there is to report, on the device."""
        config, scalars = self.config, dict[str, Tensor]()
        bf16 = config.precision == "bf16" and self.worker.device.type != "cpu"
        for which, optimizer in enumerate(self.optimizers):
            self._require_grad_of(which)
            with torch.autocast(self.worker.device.type, torch.bfloat16, enabled=bf16):
                loss, reported = self._passes[which](batch, noise_rng(config, self.worker, step, which))
            optimizer.zero_grad()
            (loss * (self.share * self.worker.world_size)).backward()  # DDP averages over ranks of unequal shares
            norm = clip_gradients(parameters_of(optimizer), config.clip_norm)
            set_lr(optimizer, lr_at(config, step))
            optimizer.step()
            suffix = f"_{which}" if which else ""
            scalars |= {f"loss{suffix}": loss, **reported}
            scalars |= {} if norm is None else {f"grad_norm{suffix}": norm}
        self._require_grad_of(None)
        self.trainable.after_step(step + 1, config.steps)
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
