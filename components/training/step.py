"""One optimizer step of the global batch, on one rank or over several."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from components.base import Batch
from components.training.config import TrainConfig
from components.training.optim import adamw, clip_gradients, lr_at, parameters_of, set_lr, total_norm
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
