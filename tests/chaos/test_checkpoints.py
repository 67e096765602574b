"""Whatever the tensors of a checkpoint file are, `rcg import-checkpoint` describes it or names what is wrong."""

import contextlib
import functools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from components.errors import RcgError
from components.interop.checkpoint import export_tensors
from flows.execution.checkpoints import import_section
from tests.reference.test_adm_files import BY_CLASS, LOW_RES, TINY, built
from tests.reference.test_glide_files import tiny_file
from tests.support.generators import build_prior

MORE = int(os.environ.get("CHAOS_MORE", "1"))
WIDE = {"width": 64, "groups": 32, "heads": {"width": 64}}
"""Sizes that files can have."""


def _adm(kind: str) -> dict[str, Tensor]:
    told = {"adm": [BY_CLASS], "adm-upsampler": [LOW_RES, BY_CLASS]}
    conditions = {"conditions": told[kind]} if kind in told else {}
    with torch.device("meta"):
        made = export_tensors(kind, built(kind, TINY[kind] | WIDE | conditions, 8, classes=("a", "b")))
    return {name: torch.zeros(tensor.shape) for name, tensor in made.items()}


KINDS: dict[str, Callable[[], dict[str, Tensor]]] = {
    **{kind: lambda kind=kind: _adm(kind) for kind in TINY},  # type: ignore[misc]
    "glide": lambda: tiny_file("base"),
    "corgi": lambda: export_tensors("corgi", build_prior("corgi")),
}


@functools.cache
def _whole(kind: str) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in KINDS[kind]().items()}


def _changed(tensors: dict[str, Tensor], rng: random.Random) -> dict[str, Tensor]:
    """Some of them are gone, renamed, or of another shape, dtype or value."""
    tensors = dict(tensors)
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(sorted(tensors))
        tensor, parts = tensors.pop(name), name.split(".")
        match rng.choice(["gone", "name", "more", "shape", "shape", "dtype", "value"]):
            case "gone":
                continue
            case "name":
                parts[rng.randrange(len(parts))] = rng.choice(["99", "10000000000", "-1", "", "x", "²"])
                name = ".".join(parts)
            case "more":
                tensors[f"{name}.{rng.choice(['0', 'x', '7.weight'])}"] = tensor.clone()
            case "shape":
                shapes = [[], [0], tensor.shape[1:], [*tensor.shape, 1], [0, *tensor.shape[1:]], [3, *tensor.shape]]
                tensor = torch.zeros(*[rng.choice(shapes)])
            case "dtype":
                tensor = tensor.to(rng.choice([torch.float16, torch.float64, torch.int64, torch.bool]))
            case "value":
                tensor = torch.full(tensor.shape, rng.choice([float("nan"), float("inf"), 1e30]))
        tensors[name] = tensor
    return tensors


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=5 * MORE, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_imported_or_named(kind: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tensors = _changed(_whole(kind), random.Random(seed))
    path = tmp_path / "w.safetensors"
    path.unlink(missing_ok=True)  # it may be mapped into memory
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    with contextlib.suppress(RcgError):
        import_section(path, kind=None, stage=None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_is_imported(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(_whole(kind), "w.safetensors")
    assert import_section(Path("w.safetensors"), kind=None, stage=None).checkpoint.kind == kind
