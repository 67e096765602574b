"""How fast a training is: examples, arithmetic, bytes, and how long the accelerator waits for data.

FLOP/s are those of the model (2204.02311, appendix B): what is computed again to spare memory does not count. MFU is
their share of what the device can do at the precision of the training.
"""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from components.base import Batch, Metrics
from components.rng import BatchRng, derive_seed
from components.training.config import TrainConfig
from components.training.distributed import sum_ranks
from components.training.memory import is_out_of_memory
from components.training.modes import in_eval_mode, require_grad_of
from components.training.trainable import Fetch, Trainable
from components.training.worker import Worker

PEAK_TFLOPS: Mapping[str, tuple[float, float]] = {
    "B200": (2250.0, 75.0),
    "H200": (989.0, 67.0),
    "H100": (989.0, 67.0),
    "A100": (312.0, 19.5),
    "L40S": (362.0, 91.6),
    "L4": (121.0, 30.3),
    "A10": (125.0, 31.2),
    "4090": (165.2, 82.6),
}
"""A word of the device's name -> its peak in bf16 (dense, tensor cores) and in fp32, by NVIDIA's data sheets."""
_N_ROWS = 2
MUCH_WAITING, LEAST_S = 0.05, 10.0
"""Share of a training that is told of, if it took so many seconds at all."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one example; a multiplication and an addition are two."""

    forward: float
    step: float
    """Forward and backward."""


def work_of_example(trainable: Trainable, fetch: Fetch, n_examples: int, config: TrainConfig) -> Work:
    """Counted on two examples where the trainable lies. Changes nothing: statistics are frozen, no gradient is left.

    Nothing is known (zeros) where not even they fit the memory: the first step says what to do.
    """
    n, seed = min(_N_ROWS, n_examples), derive_seed(config.seed, "work")
    device = next(trainable.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in fetch(np.arange(n), BatchRng(seed, n)).items()}
    groups = [[parameter for _, parameter in named] for named in trainable.optimizer_parameters()]
    forward = step = 0.0
    try:
        with in_eval_mode(trainable):
            for which, own in enumerate(groups):
                require_grad_of(groups, which)
                with Flops() as counter:
                    loss, _ = trainable(batch, BatchRng(seed, n, device=device), which)
                    forward += counter.total
                    torch.autograd.grad(loss, own, allow_unused=True)
                step += counter.total
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return Work(0.0, 0.0)
    finally:
        require_grad_of(groups, None)
    return Work(forward / n, step / n)


class Flops(TorchDispatchMode):
    """Inside, adds up the floating-point operations of what runs, by torch's formulas.

    Differs: FlopCounterMode also tells them apart by module, with hooks that torch.autograd.grad() refuses.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def peak_flops(device: torch.device, precision: str) -> float | None:
    """FLOP/s of a known GPU; None for any other device."""
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device), precision)


def peak_of(name: str, precision: str) -> float | None:
    """The same by a GPU's name, e.g. NVIDIA A100-SXM4-80GB."""
    words = name.replace("-", " ").split()
    found = next((peaks for word, peaks in PEAK_TFLOPS.items() if word in words), None)
    return None if found is None else 1e12 * found[0 if precision == "bf16" else 1]


class Meter:
    """Counts what a rank trains on and how long it waits for it, from the first batch on."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._start = self._last = time.monotonic()
        self._waited_s = self._bytes = self._waited_before_s = 0.0
        self._rows = self._examples = 0
        self._runs = False

    def awaited(self, batch: "Future[Batch]") -> Batch:
        """The batch, once it is there. What an accelerator still computes meanwhile is no waiting for data."""
        if not batch.done() and self._runs and self._worker.device.type == "cuda":
            torch.cuda.current_stream(self._worker.device).synchronize()
        asked = time.monotonic()
        found = batch.result()
        now = time.monotonic()
        if self._runs:
            self._waited_s += now - asked
        else:  # the first one is part of the start
            self._runs, self._start, self._last = True, now, now
        self._bytes += sum(tensor.nbytes for tensor in found.values())
        self._rows += len(next(iter(found.values()))) if found else 0
        return found

    def close(self, work: Work, precision: str) -> Metrics:
        """Rates since the last call, of all ranks together; data_wait and mfu are means over ranks. Collective."""
        now, n_ranks = time.monotonic(), self._worker.world_size
        seconds, self._last = max(now - self._last, 1e-9), now
        mine = torch.tensor([self._rows, self._bytes, self._waited_s], dtype=torch.float64, device=self._worker.device)
        rows, n_bytes, waited = sum_ranks(self._worker, mine).tolist()
        self._waited_before_s += self._waited_s
        self._rows, self._bytes, self._waited_s = 0, 0.0, 0.0
        rates = {
            "examples_per_s": rows / seconds,
            "data_mb_per_s": n_bytes / seconds / 1e6,
            "data_wait": min(1.0, waited / n_ranks / seconds),
        }
        if work.step == 0:
            return rates
        flops, peak = work.step * rows / seconds, peak_flops(self._worker.device, precision)
        return rates | {"flops_per_s": flops} | ({} if peak is None else {"mfu": flops / n_ranks / peak})

    def end(self) -> None:
        """Say once whether this rank has waited much."""
        seconds = time.monotonic() - self._start
        share = self._waited_before_s / max(seconds, 1e-9)
        if self._worker.rank == 0 and seconds >= LEAST_S and share > MUCH_WAITING:
            _log.warning(
                "training waited for data %.0f%% of its time: raise RCG_THREADS where pictures are decoded, "
                "give TMPDIR a faster disk where rows are read, or train on fewer workers",
                100 * share,
            )
