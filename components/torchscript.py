"""Weights of a TorchScript archive, as OpenAI publishes CLIP, read without running the code in it.

The archive is a zip: data.pkl is a pickle of modules as plain attributes, data/N the numbers, code/ what is left alone.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _Module:
    """A module of the archive; its attributes, which are tensors, modules and plain values."""


class _Numbers(NamedTuple):
    flat: Tensor


def is_torchscript(path: Path) -> bool:
    """Whether a zip archive holds code beside its data."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by name.

    Raises: pickle.UnpicklingError for an archive with anything else than modules, tensors and plain values; KeyError,
    ValueError or BadZipFile for a damaged one, and for one that stands for more numbers or names than it holds.
    """
    with zipfile.ZipFile(path) as archive:
        [root] = [
            name.removesuffix("data.pkl")
            for name in archive.namelist()
            if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        return dict(_named(_Unpickler(archive, root, path.stat().st_size).load(), set()))


def _named(module: Any, seen: set[int], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Raises: ValueError for a module that is in two places: a few of them would have any number of names."""
    if id(module) in seen:
        raise ValueError(f"{prefix} is a module that is elsewhere, too")
    seen.add(id(module))
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _named(value, seen, f"{prefix}{name}.")


class _Unpickler(pickle._Unpickler):
    """Knows nothing but what an archive of weights needs. That in C makes room for as many values as a byte says."""

    def __init__(self, archive: zipfile.ZipFile, root: str, most_bytes: int) -> None:
        super().__init__(io.BytesIO(_stored(archive, f"{root}data.pkl")))
        self._archive, self._root = archive, root
        self._left = most_bytes  # not to be read again and again

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = {("collections", "OrderedDict"): OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): _tensor}
        if module == "torch.jit._pickle":
            return _plain
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is no weight")
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Numbers:
        _, dtype, key, _, n = pid
        self._left -= max(0, n) * dtype.itemsize
        if self._left < 0:
            raise ValueError("its tensors hold more numbers than the file")
        data = _stored(self._archive, f"{self._root}data/{key}")
        if len(data) != n * dtype.itemsize:
            raise ValueError(f"data/{key} has {len(data)} bytes for {n} numbers")
        return _Numbers(torch.frombuffer(bytearray(data), dtype=dtype) if n else torch.empty(0, dtype=dtype))


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A record as it is. Raises: ValueError for a compressed one, which may unpack to more than memory holds."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(info)


def _tensor(numbers: _Numbers, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if math.prod(size) > numbers.flat.numel():
        raise ValueError(f"a tensor of shape {size} has {numbers.flat.numel()} numbers")
    return numbers.flat.as_strided(size, stride, offset).clone()


def _plain(value: Any, *_: Any) -> Any:
    return value
