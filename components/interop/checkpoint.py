"""Reference checkpoint files, all kinds of them: read, recognize, take apart, and write back.

kind, tensors = (found := read_checkpoint(path)).kind, found.tensors
imported = import_tensors(kind, tensors)          # our names, and what is kept
assert export_tensors(kind, imported.weights, imported.kept).keys() == tensors.keys()
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.errors import ConfigError, WeightsError
from components.files import file_sha256
from components.interop import codecs, encoders, guides, pixels, representations, text, upsamplers
from components.interop.layout import Imported, Layout, Tensors, find_in
from components.interop.signatures import STAGE_OF
from components.weights import read_tables, save_weights

LAYOUTS: dict[str, Layout] = {
    layout.kind: layout
    for part in (text, encoders, codecs, representations, pixels, guides, upsamplers)
    for layout in part.LAYOUTS
}


@dataclass(frozen=True)
class Checkpoint:
    """A file's tensors under the names of a stand-alone file of their kind."""

    kind: str
    tensors: dict[str, Tensor]
    """Those that the reference samples with: averaged ones, if there are."""
    live: dict[str, Tensor]
    """The trained weights beside averaged ones, for kinds that keep both under equal names."""
    parts: dict[str, dict[str, Tensor]]
    """All models of the file by kind: a generator's file may carry its frozen encoder and codec."""
    sha256: str


def read_checkpoint(path: Path, kind: str | None = None) -> Checkpoint:
    """Read and recognize a file; `kind` picks one of several models in it. Nothing in the file is run.

    Raises: WeightsError for a file that is absent, damaged, unsafe, unknown or of another kind.
    """
    tables = read_tables(path)
    parts = {
        name: found for name, layout in LAYOUTS.items() if (found := find_in(layout, tables, str(path))) is not None
    }
    kinds = [name for name in parts if not any(other in parts for other in LAYOUTS[name].others)]
    if not kinds:
        raise WeightsError(f"{path} is of no known kind", got=_some(tables), expected=", ".join(LAYOUTS))
    picked = kinds[-1] if kind is None else layout_of(kind).kind
    if picked not in parts:
        raise WeightsError(f"{path} holds no {picked}", got=" and ".join(kinds), fix=f"try --kind {kinds[-1]}")
    live = LAYOUTS[picked].live(tables)
    return Checkpoint(picked, parts[picked], live, {k: parts[k] for k in kinds}, file_sha256(path))


def layout_of(kind: str) -> Layout:
    """Raises: ConfigError for a kind that is not known."""
    if kind not in LAYOUTS:
        raise ConfigError("no such kind of checkpoint", got=kind, expected=" | ".join(LAYOUTS))
    return LAYOUTS[kind]


def import_tensors(kind: str, tensors: Tensors, module: nn.Module | None = None) -> Imported:
    """A reference file's tensors under our names; with a module, checked against it and loaded into it.

    Raises: WeightsError naming what is missing, extra, or of another shape or dtype.
    """
    layout = layout_of(kind)
    if module is not None:
        layout.check(tensors, module.state_dict(), source=f"the {kind} checkpoint")
    imported = layout.imported(tensors)
    if module is not None:
        module.load_state_dict(imported.weights, strict=True)
    return imported


def export_tensors(kind: str, weights: Tensors | nn.Module, kept: Tensors | None = None) -> dict[str, Tensor]:
    """Our tensors, or a module's, under the reference's names; `kept` is what import_tensors found besides."""
    found = weights.state_dict() if isinstance(weights, nn.Module) else weights
    return layout_of(kind).exported(found, kept or {})


def describe(kind: str, tensors: Tensors) -> dict[str, Any]:
    """The stage's `model` section that shapes tell; what they cannot tell is as published. Raises: WeightsError."""
    return layout_of(kind).facts(tensors)


def write_checkpoint(path: Path, kind: str, tensors: Tensors, live: Tensors | None = None) -> None:
    """A file as the reference writes it; a name that ends in .safetensors gives the bare tensors."""
    if path.suffix == ".safetensors":
        save_weights(path, tensors)
        return
    torch.save(_wrapped(kind, _on_cpu(tensors), _on_cpu(live or {})), path)


def _on_cpu(tensors: Tensors) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


_GLIDE = ("glide", "glide-upsampler", "glide-clip-image", "glide-clip-text")
_BARE = ("corgi", "unclip", "adm-classifier", "adm-upsampler", *_GLIDE)
"""Kinds whose files hold their tensors and nothing around them."""


def _wrapped(kind: str, tensors: dict[str, Tensor], live: dict[str, Tensor]) -> Mapping[str, Any]:
    """The entries under which the reference's loaders look."""
    match kind:
        case "adm" if "rep_proj.weight" not in tensors and not live:
            return tensors
        case "mocov3":
            return {"state_dict": {f"module.base_encoder.{name}": t for name, t in tensors.items()}}
        case "dino" | "ibot":
            return {"teacher": {n if n.startswith("head.") else f"backbone.{n}": t for n, t in tensors.items()}}
        case "dit" | "adm":
            return {"model": live or tensors, "model_ema": tensors}
        case _ if kind in _BARE:
            return tensors
        case "rdm" | "mage" | "deit":
            return {"model": tensors, "model_ema": None}
        case _:
            return {"state_dict": tensors}


def stage_of(kind: str) -> str:
    """The stage that imports it."""
    return STAGE_OF[kind]


def _some(tables: Mapping[str, Mapping[str, Tensor]]) -> str:
    names = [name for table in tables.values() for name in table]
    return f"{len(names)} tensors such as {', '.join(names[:3])}"
