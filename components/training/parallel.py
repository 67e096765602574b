"""How the passes of a step are spread over devices, time and memory. Models and losses know nothing of it.

Replication (DDP) or sharding (FSDP2), accumulation over parts of a rank's rows, recomputation of activations, bfloat16
and compilation.
None of it is a param: all of it computes the same gradient, but for rounding.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from components.base import Batch
from components.nn.unit import Unit
from components.rng import BatchRng
from components.training.config import TrainConfig
from components.training.distributed import whole
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


class Passes:
    """Forward and backward passes over this rank's rows of a batch, for each optimizer of a trainable."""

    def __init__(self, trainable: Trainable, config: TrainConfig, worker: Worker) -> None:
        self.trainable, self.config, self.worker = trainable, config, worker
        self._passes = [self._wrapped(which, group) for which, group in enumerate(trainable.optimizer_parameters())]
        self._parts = parts_of_rows(trainable, config, worker)
        trainable.rows_at_once = worker.micro_batch if trainable.in_parts else None
        self._sharded: list[Any] = list(trainable.children()) if is_sharded(trainable, worker) else []

    def _wrapped(self, which: int, named: list[tuple[str, nn.Parameter]]) -> nn.Module:
        one = _Pass(self.trainable, which)
        if self.worker.compiled:
            one.compile()
        if self.worker.world_size == 1 or is_sharded(self.trainable, self.worker):
            return one
        own = {id(p) for _, p in named}
        others = [name for name, p in one.named_parameters() if id(p) not in own]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(one, others)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(one, forward_sync_buffers=False)

    def __call__(self, step: int, which: int, batch: Batch) -> dict[str, Tensor]:
        """Add the gradient of the global batch's mean loss. Returns the loss and what else is reported: means over this
        rank's rows.
        """
        means: dict[str, Tensor] = {}
        n = self._parts[-1].stop
        for part in self._parts:
            rows = batch if len(self._parts) == 1 else {name: tensor[part] for name, tensor in batch.items()}
            size = part.stop - part.start
            with self._synchronized(which, last=part.stop == n):
                loss, reported = self._forward(step, which, rows, part)
                weight = size / self.config.batch_size * self.worker.world_size  # DDP averages over ranks
                (loss * weight).backward()
            for name, value in {"loss": loss, **reported}.items():
                share = value.detach() * (size / n)
                means[name] = means[name] + share if name in means else share
        return means

    def _forward(self, step: int, which: int, rows: Batch, part: slice) -> Any:
        rng = noise_rng(self.config, self.worker, step, which, part)
        with self.precision():
            return self._passes[which](rows, rng)

    def precision(self) -> AbstractContextManager[None]:
        """What forward passes compute in."""
        bf16 = self.config.precision == "bf16" and self.worker.device.type != "cpu"
        return torch.autocast(self.worker.device.type, torch.bfloat16, enabled=bf16)

    @property
    def rows_of_a_pass(self) -> int:
        """Most rows that this rank takes through the network at once."""
        longest: int = max(part.stop - part.start for part in self._parts)
        return min(longest, self.trainable.rows_at_once or longest)

    @property
    def stands_alone(self) -> bool:
        """Whether this rank can try a pass without the others, with fewer rows at once than it has."""
        apart = self.trainable.by_row or self.trainable.in_parts
        return apart and (self.worker.world_size == 1 or (self.trainable.by_row and not self._sharded))

    def attempt(self, step: int, which: int, batch: Batch, n: int) -> None:
        """The passes of optimizer `which` with n rows at once, leaving no gradient behind."""
        part = self._parts[0]
        if self.trainable.by_row:
            part = slice(0, n)
            batch = {name: tensor[part] for name, tensor in batch.items()}
        else:
            self.trainable.rows_at_once = n
        with self.precision():
            loss, _ = self.trainable(batch, noise_rng(self.config, self.worker, step, which, part), which)
        torch.autograd.grad(loss, [p for p in self.trainable.parameters() if p.requires_grad], allow_unused=True)

    def _synchronized(self, which: int, *, last: bool) -> AbstractContextManager[None]:
        """The ranks' gradients are averaged once per step, behind the last part."""
        for module in self._sharded:
            module.set_requires_gradient_sync(last)
        one = self._passes[which]
        if last or not isinstance(one, DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[None] = one.no_sync()
        return context


def parts_of_rows(trainable: Trainable, config: TrainConfig, worker: Worker) -> list[slice]:
    """This rank's rows, in as many parts on every rank; one part where the loss needs the rows together."""
    rows = worker.rows(config.batch_size)
    n, n_parts = rows.stop - rows.start, 1
    if worker.micro_batch is not None and trainable.by_row:
        least, most = config.batch_size // worker.world_size, -(-config.batch_size // worker.world_size)
        n_parts = min(least, -(-most // worker.micro_batch))
    return [slice(n * i // n_parts, n * (i + 1) // n_parts) for i in range(n_parts)]


def is_sharded(trainable: Trainable, worker: Worker) -> bool:
    """Whether a training's weights are split over the ranks."""
    return worker.shard and worker.world_size > 1 and trainable.by_row


def in_training(trainable: Trainable, worker: Worker) -> Trainable:
    """What is trained on the worker's device: the trainable itself, or a copy of which each rank has a shard.

    Beside a copy the trainable stays on the CPU, and has old weights until gather().
    """
    if not is_sharded(trainable, worker):
        return trainable.to(worker.device).train()
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    shard = copy.deepcopy(trainable.to("cpu").train())
    mesh = init_device_mesh(worker.device.type, (worker.world_size,))
    for module in (*(m for m in shard.modules() if isinstance(m, Unit)), *shard.children()):
        fully_shard(module, mesh=mesh)  # a unit's weights are whole while it computes, and gone afterwards
    return shard


@torch.no_grad()
def gather(shard: Trainable, trainable: Trainable) -> None:
    """Give the trainable the weights of its shards. Collective."""
    if shard is not trainable:
        trained = shard.state_dict()
        for name, tensor in trainable.state_dict().items():
            tensor.copy_(whole(trained[name]))


@contextmanager
def on_device(trainable: Trainable, worker: Worker) -> Iterator[None]:
    """Inside, the trainable is on the worker's device; beside shards it lies on the CPU."""
    home = next(trainable.parameters()).device
    trainable.to(worker.device)
    try:
        yield
    finally:
        trainable.to(home)


@contextmanager
def recomputing(trainable: Trainable, worker: Worker) -> Iterator[None]:
    """Inside, units of the networks keep no activations for the gradient, but compute them again, if the worker asks.

    Costs about a third more arithmetic; moves no bits.
    """
    modules = trainable.modules() if worker.recompute else ()
    units = [m for m in modules if isinstance(m, Unit) and any(p.requires_grad for p in m.parameters())]
    for unit in units:
        # No global random state to restore: networks sample from the Rng that they are given.
        vars(unit)["forward"] = partial(checkpoint, unit.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for unit in units:
            del vars(unit)["forward"]
