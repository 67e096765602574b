"""One optimizer step of the global batch, on one rank or over several."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from components.base import Batch
from components.errors import ConfigError
from components.training.config import TrainConfig
from components.training.memory import does_not_fit, is_out_of_memory, most_rows
from components.training.modes import require_grad_of
from components.training.optim import adamw, clip_gradients, lr_at, parameters_of, set_lr, total_norm
from components.training.parallel import Passes
from components.training.trainable import Trainable
from components.training.worker import Worker

_MOMENTS = 2
"""Tensors of its size that AdamW keeps of a parameter."""


class Stepper:
    """The optimizers of a trainable and how to step them; the gradient is that of the mean over the global batch."""

    def __init__(self, trainable: Trainable, config: TrainConfig, worker: Worker) -> None:
        self.trainable, self.config, self.worker = trainable, config, worker
        self.optimizers = [adamw(group, config.optimizer) for group in trainable.optimizer_parameters()]
        self._passes = Passes(trainable, config, worker)
        rows = worker.rows(config.batch_size)
        self.share = (rows.stop - rows.start) / config.batch_size

    def __call__(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Take step 0 <= step < steps; returns what there is to report, on the device.

        Raises: ConfigError, which names a micro-batch that fits, when memory runs out.
        """
        try:
            return self._step(step, batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        raise self._too_large(step, batch)  # behind the block: the error's frames hold all activations

    def _step(self, step: int, batch: Batch) -> dict[str, Tensor]:
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
        require_grad_of([parameters_of(optimizer) for optimizer in self.optimizers], which)

    def _too_large(self, step: int, batch: Batch) -> ConfigError:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        passes, worker = self._passes, self.worker
        rows = passes.rows_of_a_pass
        spared = [] if worker.recompute else ["set RCG_RECOMPUTE=true"]
        spared += [] if worker.shard else ["set RCG_SHARD=true with more workers"]
        fix = ", or ".join([*spared, "train a smaller model"])
        if passes.stands_alone:
            fits = most_rows(partial(self._attempt, step, batch), rows)
            if fits is not None:
                fix = f"set RCG_MICRO_BATCH={fits}: passes of {fits} row(s) were tried and fit"
        elif rows > 1 and (self.trainable.by_row or self.trainable.in_parts):
            fix = f"set RCG_MICRO_BATCH={rows // 2}, or less; or {fix}"
        return does_not_fit(worker.device, got=f"a step of training with {rows} row(s) in a pass", fix=fix)

    def _attempt(self, step: int, batch: Batch, n: int) -> None:
        """Passes of n rows, with room for what the optimizers will remember."""
        new = [p for o in self.optimizers for p in parameters_of(o) if p not in o.state]
        _room = [torch.empty_like(p) for p in new for _ in range(_MOMENTS)]
        for which in range(len(self.optimizers)):
            self._require_grad_of(which)
            self._passes.attempt(step, which, batch, n)

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Are all trained weights finite? Reads the device; the same on every rank."""
        norms = [total_norm(parameters_of(o)) for o in self.optimizers]
        return bool(torch.isfinite(torch.stack(norms)).all().item())

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint needs, by name: weights, buffers and what the optimizers remember. No copies."""
        weights = {f"model.{name}": tensor for name, tensor in self.trainable.state_dict().items()}
        return weights | {
            f"{owner}.{key}": tensor
            for owner, optimizer, parameter in self._owners()
            for key, tensor in optimizer.state[parameter].items()
        }

    def make_room(self, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """tensors(), with memories of the optimizers as a checkpoint holds them: they have none before a first step."""
        saved: dict[str, list[str]] = {}
        for name in shapes:
            owner, key = name.rsplit(".", 1)
            saved.setdefault(owner, []).append(key)
        for owner, optimizer, parameter in self._owners():
            for key in saved.get(owner, []):
                shape = shapes[f"{owner}.{key}"]
                if shape == parameter.shape:
                    optimizer.state[parameter][key] = torch.zeros_like(parameter).detach()
                else:
                    optimizer.state[parameter][key] = torch.zeros(shape, device=parameter.device)
        return self.tensors()

    def _owners(self) -> Iterator[tuple[str, torch.optim.Optimizer, nn.Parameter]]:
        """Each parameter of each optimizer, under the name that its memories have in a checkpoint."""
        names = {id(parameter): name for name, parameter in self.trainable.named_parameters()}
        for i, optimizer in enumerate(self.optimizers):
            for parameter in parameters_of(optimizer):
                yield f"optimizer{i}.{names[id(parameter)]}", optimizer, parameter
