"""What a training will take of a device, found without one: a step's passes on tensors that have shapes and no memory.

Differs from a real device by its allocator's rounding, by the libraries' workspaces (a GPU's context takes about half a
GB) and where its kernels keep more than the CPU's.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from components.base import Batch
from components.training.checkpoint import NoCheckpoints
from components.training.config import TrainConfig
from components.training.parallel import Passes, recomputing
from components.training.throughput import work_of_example
from components.training.trainable import Trainable
from components.training.worker import Worker

_MOMENTS = 2
"""Of AdamW, per trained parameter."""


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device while a step's gradient is computed, and the arithmetic of a step."""

    weights: int
    """What the forward pass uses, buffers and frozen parts too."""
    averages: int
    """Further copies of the weights: EMA, momentum encoder, an earlier state."""
    optimizer: int
    gradients: int
    activations: int
    """Of a pass of `rows` examples, with all that is temporary."""
    rows: int
    flops: float
    """Floating-point operations of a step over all devices; what is computed again does not count."""

    @property
    def fixed(self) -> int:
        """What does not depend on the number of rows."""
        return self.weights + self.averages + self.optimizer + self.gradients

    @property
    def total(self) -> int:
        return self.fixed + self.activations

    def rows_that_fit(self, n_bytes: float) -> int:
        """Most examples per pass with so much memory, as activations grow in proportion to them; 0 if none."""
        return max(0, int((n_bytes - self.fixed) / (self.activations / self.rows)))


@dataclass(frozen=True)
class How:
    """The settings that decide what a device holds."""

    workers: int = 1
    micro_batch: int | None = None
    shard: bool = False
    recompute: bool = False


def estimate(
    build: Callable[[], Trainable], batch: Callable[[int], Batch], config: TrainConfig, how: How, *, bf16: bool
) -> Estimate:
    """Of a training on `how.workers` devices. `build` and `batch` (of n rows) are called where tensors have no memory.

    bf16: whether passes compute in it, as params ask for on a GPU.
    """
    share = -(-config.batch_size // how.workers)
    with without_memory():
        trainable = build().train()
        longest = min(share, how.micro_batch or share)
        rows = share if not trainable.by_row else min(share, 2 * longest)  # gradients are there in the second pass
        one = config.model_copy(update={"batch_size": rows})
        peak = _peak(trainable, batch(rows), one, how, bf16=bf16)
        work = work_of_example(trainable, lambda indices, _rng: batch(len(indices)), rows, config)
    trained = [p for group in trainable.optimizer_parameters() for _, p in group]
    n_trained, n_copies = _bytes(trained), _bytes(_copies(trainable))
    parts = how.workers if how.shard and trainable.by_row else 1
    return Estimate(
        weights=(_bytes(_all(trainable)) - n_copies) // parts,
        averages=n_copies // parts,
        optimizer=_MOMENTS * n_trained // parts,
        gradients=n_trained // parts,
        activations=max(0, peak - n_trained),
        rows=longest,
        flops=work.step * config.batch_size,
    )


@contextmanager
def without_memory() -> Iterator[None]:
    """Inside, tensors have a shape, a type and a device, and no memory; modules of them can be copied."""
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    def copied(tensor: Any, memo: dict[int, Any]) -> Any:
        memo[id(tensor)] = found = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        if isinstance(tensor, nn.Parameter):
            found._is_param = True  # as nn.Parameter() marks tensors of other classes than torch.Tensor
        return found

    kept = FakeTensor.__deepcopy__
    FakeTensor.__deepcopy__ = copied  # type: ignore[method-assign]  # torch's reads the bytes
    try:
        with FakeTensorMode():
            yield
    finally:
        FakeTensor.__deepcopy__ = kept  # type: ignore[method-assign]


def _peak(trainable: Trainable, batch: Batch, config: TrainConfig, how: How, *, bf16: bool) -> int:
    """Most bytes that the passes of one optimizer make."""
    worker = Worker(
        0,
        1,
        torch.device("cpu"),
        NoCheckpoints(),
        lambda _report: None,
        Path(),
        1,
        1,
        micro_batch=how.micro_batch,
        recompute=how.recompute,
    )
    passes, peaks = _Passes(trainable, config, worker, bf16=bf16), [0]
    with recomputing(trainable, worker):
        for which in range(len(trainable.optimizer_parameters())):
            with Live() as live:
                passes(0, which, batch)
            peaks.append(live.peak)
            trainable.zero_grad()
    return max(peaks)


class _Passes(Passes):
    """In a GPU's precision, which a CPU's passes do not have."""

    def __init__(self, trainable: Trainable, config: TrainConfig, worker: Worker, *, bf16: bool) -> None:
        super().__init__(trainable, config, worker)
        self._bf16 = bf16

    def precision(self) -> AbstractContextManager[None]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._bf16)


class Live(TorchDispatchMode):
    """Inside, counts the bytes of all storages that operations make, as long as something holds them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = weakref.WeakKeyDictionary[Any, object]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in given:
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: Any) -> None:
        if storage in self._known:
            return
        n = storage.nbytes()
        self._known[storage] = weakref.finalize(storage, self._gone, n)
        self.now += n
        self.peak = max(self.peak, self.now)

    def _gone(self, n: int) -> None:
        self.now -= n


def _all(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _copies(trainable: Trainable) -> list[Tensor]:
    """Tensors of parts that no gradient reaches and that a training keeps beside what it trains."""
    names = ("ema", "earlier", "momentum_encoder")
    found = [getattr(trainable, name, None) for name in names]
    return [tensor for part in found if isinstance(part, nn.Module) for tensor in _all(part)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
