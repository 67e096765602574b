"""Weights files: safetensors written deterministically and loaded strictly; torch files read without running code."""

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.errors import WeightsError

_CONTAINERS = ("state_dict", "model")
"""Entries under which training scripts keep the weights in a torch file."""


def save_weights(path: Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; equal tensors give equal bytes."""
    tensors = {name: state_dict[name].detach().cpu().contiguous().clone() for name in sorted(state_dict)}
    save_file(tensors, path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a weights file into module, all keys, shapes and dtypes exactly. Raises: WeightsError."""
    assign(module, read_tensors(path), source=str(path))


def assign(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy tensors into module; nothing is copied unless all of it fits. Raises: WeightsError naming what does not."""
    own = module.state_dict()
    both = [(name, tensors[name], mine) for name, mine in own.items() if name in tensors]
    problems = {
        "missing": sorted(own.keys() - tensors.keys()),
        "not in the model": sorted(tensors.keys() - own.keys()),
        "wrong shape": [f"{n} {tuple(t.shape)} for {tuple(o.shape)}" for n, t, o in both if t.shape != o.shape],
        "wrong dtype": [f"{n} {t.dtype} for {o.dtype}" for n, t, o in both if t.dtype != o.dtype],
    }
    if any(problems.values()):
        raise WeightsError(
            f"{source} does not fit the model",
            got="; ".join(f"{kind}: {_few(names)}" for kind, names in problems.items() if names),
            expected=f"exactly the {len(own)} tensors of {type(module).__name__}",
            fix="use the config that the weights were made with",
        )
    module.load_state_dict(dict(tensors), strict=True)


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Named tensors of a .safetensors or torch file, on CPU; sha256 (hex) is checked before anything is parsed.

    Raises: WeightsError for an absent, altered, truncated or unsafe file.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist", fix="check the path")
    if sha256 is not None and (found := _sha256(path)) != sha256.lower():
        raise WeightsError(f"{path} is not the expected file", got=f"sha256 {found}", expected=f"sha256 {sha256}",
                           fix="download it again, or correct sha256 in params.yaml")  # fmt: skip
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        what = f"{path} is not a whole safetensors file"
        raise WeightsError(what, got=error, fix="copy or download it again") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on odd pickles before refusing them
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors; loading it would run code from the file",
            got=str(error).splitlines()[0], expected="a file that torch.load(weights_only=True) accepts",
            fix="convert it to safetensors where you trust it",
        ) from error  # fmt: skip
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise WeightsError(f"{path} is not a whole torch file", got=error, fix="copy or download it again") from error
    return _tensors_of(loaded, path)


def _tensors_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The one mapping of names to tensors in a torch file: its top level, or its `state_dict` or `model` entry."""
    entries = loaded if isinstance(loaded, Mapping) else {}
    for candidate in (entries, *(entries.get(name) for name in _CONTAINERS)):
        if isinstance(candidate, Mapping) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return {str(name): tensor for name, tensor in candidate.items()}
    raise WeightsError(f"{path} has no table of weights", got=f"entries {_few(sorted(map(str, entries)))}",
                       expected=f"names and tensors, at the top or under {' or '.join(_CONTAINERS)}")  # fmt: skip


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _few(names: list[str], n: int = 5) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
