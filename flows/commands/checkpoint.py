"""Reference checkpoints on the command line: a file as a params section, a stage's weights as a file."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.errors import ConfigError, WeightsError
from components.interop.checkpoint import (
    LAYOUTS,
    Checkpoint,
    export_tensors,
    read_checkpoint,
    stage_of,
    write_checkpoint,
)
from components.interop.layout import KEPT, LIVE
from components.weights import read_tensors
from flows.execution.project import Project, committed
from flows.pipeline.params import check_params, check_section, read_yaml
from flows.pipeline.table import check_name
from flows.runs.workspace import fill

_PARAMS = Path("params.yaml")
_CONFIG, _WEIGHTS = "config.json", "weights.safetensors"
_PUBLISHED_PX = 256


def import_checkpoint(path: Path, kind: str | None, stage: str | None, *, write: bool) -> str:
    """Recognize and check a file; the params section that makes its stage import it, written to params.yaml if asked.

    Raises: WeightsError, ConfigError.
    """
    path = _file_of(path)
    found = read_checkpoint(path, kind)
    name = stage_of(found.kind)
    if stage is not None and check_name(stage) != name:
        raise ConfigError(f"a {found.kind} file is imported by `{name}`", got=f"--stage {stage}", fix=f"--stage {name}")
    current = read_yaml(_PARAMS) if _PARAMS.is_file() else {}
    section = _section(found, path, current.get(name, {}))
    check_section(name, section)
    text = _dumped({name: section})
    lines = [_summary(found, path, name), "", text.rstrip()]
    if not write:
        return "\n".join([*lines, "", f"put this into params.yaml (--write does), then: rcg run {name}"])
    changed = {name: section, **_followers(found, current)}
    for changed_name, changed_section in changed.items():
        current = {**current, changed_name: changed_section}
        _write(changed_name, changed_section, current)
    written = f"written to {_PARAMS} ({', '.join(changed)}); now: rcg run {name}"
    return "\n".join([*lines, "", written, *_open_questions(current)])


def export_checkpoint(stage: str, path: Path, kind: str | None) -> str:
    """Write the weights of a stage's artifact in the reference's layout. Raises: ConfigError, MissingError."""
    project = Project.here()
    run = committed(project, stage)
    names = [name for name in (_CONFIG, _WEIGHTS, KEPT) if name in run.manifest.files]
    if _WEIGHTS not in names:
        raise ConfigError(f"the {stage} artifact has no weights", expected=" | ".join(sorted(set(_STAGES.values()))))
    with tempfile.TemporaryDirectory() as folder:
        fill(project.store, run, names, Path(folder))
        config = yaml.safe_load((Path(folder) / _CONFIG).read_text())
        kind = kind or _kind_of(stage, config)
        kept = read_tensors(Path(folder) / KEPT) if KEPT in names else {}
        weights = read_tensors(Path(folder) / _WEIGHTS)
    live = {name.removeprefix(LIVE): t for name, t in kept.items() if name.startswith(LIVE)}
    tensors = export_tensors(kind, weights, {name: t for name, t in kept.items() if not name.startswith(LIVE)})
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    write_checkpoint(partial, kind, tensors, live)
    partial.replace(path)
    return f"{path}: {kind}, {len(tensors)} tensors, {sum(t.numel() for t in tensors.values()):,} elements"


_STAGES = {kind: stage_of(kind) for kind in LAYOUTS}


def _file_of(path: Path) -> Path:
    """The weights file of a folder as diffusers writes it; any other path as it is."""
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        got = ", ".join(f.name for f in files) or "none"
        raise WeightsError(f"{path} has to hold one .safetensors file", got=got, fix="name the file itself")
    return files[0]


def _section(found: Checkpoint, path: Path, current: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's section: what is there, with the file's model and without training."""
    name, layout = stage_of(found.kind), LAYOUTS[found.kind]
    pin = {"uri": str(path), "sha256": found.sha256}
    model = {**layout.facts(found.tensors), **_told_beside(found.kind, path)}
    base = dict(current) if current else _blank(name)
    if name == "encoder":
        model = {"kind": model.pop("kind"), "weights": pin, **model}
        return {**base, "model": model, "px": _PUBLISHED_PX, "train": None, "contrastive": None}
    section = {**base, "model": model, "weights": pin, "train": None}
    if name == "codec":
        section["objective"] = None
    sampling = layout.sampling(found.tensors)
    if sampling is not None:
        section["preview"] = {**base["preview"], "sampling": sampling}
    return section


def _told_beside(kind: str, path: Path) -> dict[str, Any]:
    """What diffusers' config.json beside a kl file says of the scale, which no shape tells."""
    config = path.with_name("config.json")
    if kind != "kl" or not config.is_file():
        return {}
    told = yaml.safe_load(config.read_text())
    return {"scale": float(told["scaling_factor"])} if isinstance(told, dict) and "scaling_factor" in told else {}


def _followers(found: Checkpoint, current: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sections that tell how a pixel generator is drawn from, where they were for one of another kind."""
    sampling = LAYOUTS[found.kind].sampling(found.tensors)
    if sampling is None:
        return {}
    sections: dict[str, dict[str, Any]] = {}
    if "sample" in current and current["sample"]["pixels"]["kind"] != found.kind:
        sections["sample"] = {**current["sample"], "pixels": sampling}
    if "bundle" in current and current["bundle"]["sampling"]["pixels"]["kind"] != found.kind:
        inner = {**current["bundle"]["sampling"], "pixels": sampling}
        sections["bundle"] = {**current["bundle"], "sampling": inner}
    return sections


def _dumped(data: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(data), sort_keys=False, default_flow_style=None, width=118)


def _blank(name: str) -> dict[str, Any]:
    """What a section needs besides, when there is no params.yaml."""
    probe = {"batch_size": 64, "max_images": 5000, "k_neighbors": 5, "weight_decay": 0.001, "iterations": 100}
    sampling = {
        "kind": "diffusion", "sampler": "ddim", "steps": 250, "spacing": "reference", "eta": 1.0, "guidance": 0.0,
    }  # fmt: skip
    besides: dict[str, dict[str, Any]] = {
        "encoder": {"probe": probe},
        "codec": {},
        "rdm": {"ema": None, "check": {"n": 1000, "batch_size": 250, "sampling": sampling}},
        "pixels": {"ema": None, "preview": {"every": 1000, "n": 16, "sampling": None}},
    }
    return {"numerics": 1, "seed": 0, **besides[name]}


def _summary(found: Checkpoint, path: Path, name: str) -> str:
    elements = sum(t.numel() for t in found.tensors.values())
    others = [kind for kind in found.parts if kind != found.kind]
    lines = [
        f"file      {path}",
        f"kind      {found.kind}, imported by stage {name}",
        f"tensors   {len(found.tensors)}, {elements:,} elements",
        f"sha256    {found.sha256}",
    ]
    return "\n".join([*lines, *([f"also      {', '.join(others)}: import them with --kind"] if others else [])])


def _write(name: str, section: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    """Replace one section of params.yaml, and its comments; the others keep theirs unless an anchor forbids it."""
    text = _dumped({name: section})
    old = _PARAMS.read_text() if _PARAMS.is_file() else ""
    pattern = re.compile(rf"^{name}:.*\n(?:[ \t#].*\n|\n)*", re.MULTILINE)
    new = pattern.sub(lambda _: text + "\n", old, count=1) if pattern.search(old) else old + text
    try:
        kept = yaml.safe_load(new) == whole
    except yaml.YAMLError:
        kept = False
    if not kept:
        new = _dumped(whole)
    partial = _PARAMS.with_name(f".{_PARAMS.name}.partial")
    partial.write_text(new)
    partial.replace(_PARAMS)


def _open_questions(whole: Mapping[str, Any]) -> list[str]:
    """What other sections have to follow: dimensions, target spaces, sampling options."""
    try:
        check_params(whole, str(_PARAMS))
    except ConfigError as error:
        return ["", f"before that, {error.what}"]
    return []


def _kind_of(stage: str, config: Mapping[str, Any]) -> str:
    """The layout of an artifact. Raises: ConfigError for one that the reference has no file for."""
    if stage == "rdm":
        return "rdm"
    kind = str(config.get("model", config).get("kind"))
    if kind not in LAYOUTS:
        raise ConfigError(f"the reference has no file for a {kind}", expected=", ".join(LAYOUTS))
    return kind
