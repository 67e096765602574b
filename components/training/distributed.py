"""The few collectives that stages need, over torch's default process group. All of them are no-ops on one rank."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from components.training.worker import Worker

T = TypeVar("T")


def gather_objects(worker: Worker, value: T) -> list[T]:
    """Every rank's value, in rank order, on every rank. Values are pickled: meant for small ones."""
    if worker.world_size == 1:
        return [value]
    gathered = [value] * worker.world_size
    dist.all_gather_object(gathered, value)
    return gathered


def made_by_first(worker: Worker, make: Callable[[], T]) -> T:
    """What make() gives on rank 0, on every rank; the others wait. Pickled, as all objects are."""
    if worker.world_size == 1:
        return make()
    box: list[Any] = [make() if worker.rank == 0 else None]
    dist.broadcast_object_list(box, src=0)
    made: T = box[0]
    return made


def sum_ranks(worker: Worker, tensor: Tensor) -> Tensor:
    """Elementwise sum over ranks, as a new tensor on the same device."""
    total = tensor.clone()
    if worker.world_size > 1:
        dist.all_reduce(total)
    return total


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is split over the ranks, on every rank; any other tensor as it is. Collective."""
    full: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def any_rank(worker: Worker, flag: bool) -> bool:
    """True everywhere when it is true on some rank."""
    if worker.world_size == 1:
        return flag
    return bool(sum_ranks(worker, torch.tensor([float(flag)], device=worker.device)).item())


def share_out(worker: Worker, items: Sequence[T], ensure: Callable[[T], object]) -> None:
    """ensure(item) of each item by one rank; then of all by rank 0, which finds there what the others have made.

    Raises: RetryableError between two items, when told to stop.
    """
    mine = worker.rows(len(items))
    for item in worker.parts(items[mine]):
        ensure(item)
    if worker.world_size > 1:
        dist.barrier()
    if worker.rank == 0:
        for item in (*items[: mine.start], *items[mine.stop :]):
            ensure(item)
