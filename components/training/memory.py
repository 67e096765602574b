"""A step that does not fit the memory ends in one error, which names a number of rows that was tried and fits."""

from collections.abc import Callable, Iterator

import torch

from components.errors import ConfigError

_TOLD = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How torch and its libraries say it where they have no class of error for it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch did not get the memory that it asked for."""
    told = isinstance(error, RuntimeError) and any(words in str(error) for words in _TOLD)
    return isinstance(error, torch.OutOfMemoryError) or told


def most_rows(attempt: Callable[[int], object], tried: int) -> int | None:
    """The first of tried // 2, tried // 4, … 1 rows that attempt(n) does not run out of memory with; None without."""
    return next((n for n in _halves(tried) if _fits(attempt, n)), None)


def _halves(n: int) -> Iterator[int]:
    while n > 1:
        n //= 2
        yield n


def _fits(attempt: Callable[[int], object], n: int) -> bool:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        attempt(n)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def does_not_fit(device: torch.device, *, got: str, fix: str) -> ConfigError:
    """The error of work that needs more memory than the device has."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
    return ConfigError(f"this needs more memory than {where} has", got=got, fix=fix)
