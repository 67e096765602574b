"""Weights files: safetensors written deterministically and loaded strictly; torch files read without running code."""

import contextlib
import importlib
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.errors import ConfigError, MissingError, WeightsError
from components.files import file_sha256
from components.torchscript import is_torchscript, read_torchscript
from components.weights_file import WeightsFile

_CONTAINERS = ("", "state_dict", "model", "teacher", "model_ema")
"""Entries under which training scripts keep the weights in a torch file, the likeliest first; "": the top level."""

_FIXES = {
    "missing": "use the config that the weights were made with, and the whole file",
    "wrong dtype": "convert the tensors to that dtype where you trust them, and write the file anew",
    "not finite": "use a checkpoint from before its training diverged",
}
"""By the first thing that is wrong with a file."""

UNRECORDED = "0" * 64
"""Stands in params.yaml for a digest that is not known yet."""

FRAMES = ("base_encoder.", "backbone.")
"""Prefixes that training scripts put before the names of the network that is used afterwards."""

Tables = dict[str, dict[str, Tensor]]
"""The named tensors of a file by the entry that holds them; "" is the top level."""


def fetch_tables(file: WeightsFile, what: str, where: str) -> Tables:
    """What read_tables finds; `what` names the model, `where` the params key. Raises: WeightsError, ConfigError."""
    if urlparse(file.uri).scheme != "s3":
        return _pinned_tables(file, local_path(file), what, where)
    from components.store import open_store  # a bundle carries no store: its weights lie beside it

    folder, _, name = file.uri.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="rcg-weights-", ignore_cleanup_errors=True) as scratch:
        path = Path(scratch) / (name or "weights")
        with contextlib.suppress(MissingError):
            open_store(folder).download(name, path)
        return _pinned_tables(file, path, what, where)


def fetch_weights(file: WeightsFile, what: str, where: str) -> dict[str, Tensor]:
    """The likeliest table of them. Raises: WeightsError, ConfigError."""
    return likeliest(fetch_tables(file, what, where), file.uri)


def local_path(file: WeightsFile) -> Path:
    """Raises: ConfigError for a URI that is not of a local file."""
    parts = urlparse(file.uri)
    if parts.scheme == "":
        return Path(file.uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    expected = "a path, a file:// URI or s3://bucket/key"
    raise ConfigError("weights are not read from there", got=file.uri, expected=expected, fix="copy the file first")


def _pinned_tables(file: WeightsFile, path: Path, what: str, where: str) -> Tables:
    """Raises: WeightsError when `path` is absent or its digest is not, or not yet, that of params.yaml."""
    if not path.is_file():
        digest = "" if file.sha256 == UNRECORDED else f" with sha256 {file.sha256}"
        raise WeightsError(
            f"the weights file of {what} does not exist",
            got=file.uri,
            expected=f"a .safetensors or torch file called {path.name}{digest}",
            fix=f"put the file there, or set {where}.uri; record its digest with `sha256sum {path.name}` "
            f"in {where}.sha256",
        )
    if file.sha256 == UNRECORDED:
        what, fix = f"the digest of {file.uri} is not recorded", f"if you trust the file, set {where}.sha256 to it"
        raise WeightsError(what, got=f"sha256 {file_sha256(path)}", expected="its digest in params.yaml", fix=fix)
    return read_tables(path, file.sha256)


def required(weights: WeightsFile | None, where: str) -> WeightsFile:
    """Raises: ConfigError for null."""
    if weights is None:
        raise ConfigError(
            "nothing is trained here, and there are no weights",
            got=f"{where}: null",
            expected="{uri: FILE, sha256: DIGEST}",
            fix="name the file, and its digest as `sha256sum FILE` prints it",
        )
    return weights


class _Namespace:
    """Stands in for argparse.Namespace, in which training scripts pickle their options; a bag of attributes."""


_multiarray: Any = importlib.import_module("numpy._core.multiarray")
_NUMPY: list[Any] = [
    np.dtype,
    np.ndarray,
    *(type(np.dtype(code)) for code in "?bhilqBHILQefd"),  # plain numbers, as in the state of NumPy's generator
    *(
        (of, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name, of in (("scalar", _multiarray.scalar), ("_reconstruct", _multiarray._reconstruct))
    ),
]
"""NumPy's plain numbers and arrays, in which training scripts keep a best score: data, no code."""


def save_weights(path: Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; equal tensors give equal bytes."""
    tensors = {name: state_dict[name].detach().cpu().contiguous().clone() for name in sorted(state_dict)}
    save_file(tensors, path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a weights file into module, all keys, shapes and dtypes exactly. Raises: WeightsError."""
    assign(module, read_tensors(path), source=str(path))


def assign(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy tensors into module; nothing is copied unless all of it fits. Raises: WeightsError naming what does not."""
    check_tensors(tensors, module.state_dict(), source=source, model=type(module).__name__)
    module.load_state_dict(dict(tensors), strict=True)


def check_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, source: str, model: str) -> None:
    """Names, shapes and dtypes are exactly those of `wanted`, and every number is finite.

    Raises: WeightsError naming what differs.
    """
    both = [(name, tensors[name], mine) for name, mine in wanted.items() if name in tensors]
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "not in the model": sorted(tensors.keys() - wanted.keys()),
        "wrong shape": [f"{n} {tuple(t.shape)} for {tuple(o.shape)}" for n, t, o in both if t.shape != o.shape],
        "wrong dtype": [f"{n} {t.dtype} for {o.dtype}" for n, t, o in both if t.dtype != o.dtype],
        "not finite": [n for n, t, _ in both if t.is_floating_point() and not t.is_meta and not t.isfinite().all()],
    }
    if any(problems.values()):
        raise WeightsError(
            f"{source} does not fit the model",
            got="; ".join(f"{kind}: {_few(names)}" for kind, names in problems.items() if names),
            expected=f"exactly the {len(wanted)} tensors of {model}",
            fix=_FIXES.get(next(kind for kind, names in problems.items() if names), _FIXES["missing"]),
        )


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Named tensors of a .safetensors or torch file, on CPU; sha256 (hex) is checked before anything is parsed.

    Raises: WeightsError for an absent, altered, truncated or unsafe file.
    """
    return likeliest(read_tables(path, sha256), str(path))


def read_tables(path: Path, sha256: str | None = None) -> Tables:
    """Every table of named tensors in a file; empty when it has none. Raises: WeightsError as read_tensors does."""
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist", fix="check the path")
    if sha256 is not None and (found := file_sha256(path)) != sha256.lower():
        raise WeightsError(
            f"{path} is not the expected file",
            got=f"sha256 {found}",
            expected=f"sha256 {sha256}",
            fix="download it again, or correct sha256 in params.yaml",
        )
    tables = {"": _read_safetensors(path)} if path.suffix == ".safetensors" else _tables_of(load_torch(path), path)
    return {name: _unwrapped(table) for name, table in tables.items()}


def _unwrapped(table: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as the model gives them: without what torch.compile, DataParallel and AveragedModel put before all."""
    names = {name: name.replace("_orig_mod.", "") for name in table if name != "n_averaged"}
    outer = "module." if names and all(name.startswith("module.") for name in names.values()) else ""
    return {short.removeprefix(outer): table[name] for name, short in names.items()}


def framed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the encoder that a self-supervised training keeps, under its own names; any other file's as they are."""
    prefix = next((frame for frame in FRAMES if any(name.startswith(frame) for name in tensors)), "")
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith((prefix, "head."))}


def likeliest(tables: Tables, source: str) -> dict[str, Tensor]:
    """The table that holds the weights. Raises: WeightsError when there is none."""
    for name in _CONTAINERS:
        if name in tables:
            return tables[name]
    raise WeightsError(
        f"{source} has no table of weights",
        got=f"tables {_few(sorted(tables))}",
        expected=f"names and tensors, at the top or under {', '.join(_CONTAINERS[1:])}",
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # parsers raise anything at all on damaged bytes
        what = f"{path} is not a whole safetensors file"
        raise WeightsError(what, got=error, fix="copy or download it again") from error


def load_torch(path: Path) -> Any:
    """What torch.save wrote, or the tensors of a TorchScript archive, on CPU, without running code.

    Raises: WeightsError, also for a file that unpacks to more.
    torch writes its zip records as they are: a file with compressed ones is none of its own.
    """
    try:
        if is_torchscript(path):
            return read_torchscript(path)
        _check_records(path)
        allowed = torch.serialization.safe_globals([(_Namespace, "argparse.Namespace"), *_NUMPY])
        with warnings.catch_warnings(), allowed:
            warnings.simplefilter("ignore")  # torch remarks on odd pickles before refusing them
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors; loading it would run code from the file",
            got=f"{error}".partition("\n")[0],
            expected="a file that torch.load(weights_only=True) accepts",
            fix="convert it to safetensors where you trust it",
        ) from error
    except Exception as error:  # parsers raise anything at all on damaged bytes
        raise WeightsError(f"{path} is not a whole torch file", got=error, fix="copy or download it again") from error
    return loaded


def _check_records(path: Path) -> None:
    """Raises: WeightsError for a zip archive whose records are compressed; BadZipFile."""
    if not zipfile.is_zipfile(path):
        return  # of torch before 1.6
    with zipfile.ZipFile(path) as archive:
        packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        n_bytes = sum(info.file_size for info in archive.infolist())
    if packed or n_bytes > path.stat().st_size:
        raise WeightsError(
            f"{path} would unpack to more than it holds",
            got=f"{n_bytes} bytes; compressed: {_few(packed) or 'none'}",
            expected="records as torch.save writes them, not compressed",
            fix="save it again with torch.save",
        )


def _tables_of(loaded: Any, path: Path) -> Tables:
    entries = loaded if isinstance(loaded, Mapping) else {}
    candidates = {"": entries, **{str(name): entry for name, entry in entries.items()}}
    tables = {name: dict(table) for name, table in candidates.items() if _is_table(table)}
    if not tables.keys() & set(_CONTAINERS):
        raise WeightsError(
            f"{path} has no table of weights",
            got=f"entries {_few(sorted(map(str, entries)))}",
            expected=f"names and tensors, at the top or under {', '.join(_CONTAINERS[1:])}",
        )
    return tables


def _is_table(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and bool(entry)
        and all(isinstance(k, str) and isinstance(v, Tensor) and not _is_swollen(v) for k, v in entry.items())
    )


def _is_swollen(tensor: Tensor) -> bool:
    """Whether it stands for more numbers than it holds, by strides of 0."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def _few(names: list[str], n: int = 5) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
