"""Reference checkpoints: a file becomes a section of params.yaml, a stage's weights become a file."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.documents import read_json, validated
from components.errors import ConfigError, WeightsError
from components.files import file_sha256, replacing, write_whole
from components.interop.checkpoint import (
    LAYOUTS,
    Checkpoint,
    export_tensors,
    read_checkpoint,
    stage_of,
    write_checkpoint,
)
from components.interop.layout import KEPT, LIVE, not_whole
from components.weights import read_tensors
from components.weights_file import WeightsFile
from flows.execution import clip_files
from flows.execution.project import Project
from flows.pipeline.params import check_params, check_section, read_params
from flows.pipeline.table import check_name
from flows.runs.workspace import fill
from flows.yaml_files import parse_yaml

if TYPE_CHECKING:
    from torch import Tensor

PARAMS = Path("params.yaml")
_CONFIG, _WEIGHTS = "config.json", "weights.safetensors"
_PUBLISHED_PX = 256
_ENCODER, _TEXT = "encoder", "text"


@dataclass(frozen=True)
class Import:
    """A recognized file, and the section of params.yaml that makes its stage import it."""

    path: Path
    checkpoint: Checkpoint
    stage: str
    section: dict[str, Any]
    note: str | None
    """What was assumed, as the file does not say it."""
    also: tuple["Import", ...] = ()
    """Models of the file that belong to this one, for other stages."""

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """By stage, all that the file gives."""
        return {one.stage: one.section for one in (self, *self.also)}

    @property
    def text(self) -> str:
        """The sections as YAML."""
        return _dumped(self.sections)


def import_section(path: Path, *, kind: str | None, stage: str | None) -> Import:
    """Recognize and check a file. Raises: WeightsError; ConfigError where another stage than `stage` imports it."""
    path = _file_of(path)
    found = read_checkpoint(path, kind)
    name = stage_of(found.kind)
    if stage is not None and check_name(stage) != name:
        raise ConfigError(f"a {found.kind} file is imported by `{name}`", got=f"--stage {stage}", fix=f"--stage {name}")
    imported = _imported(found, path)
    if kind is not None or stage is not None or clip_files.TEXT not in found.parts or found.kind == clip_files.TEXT:
        return imported
    text = replace(found, kind=clip_files.TEXT, tensors=found.parts[clip_files.TEXT])
    return replace(imported, also=(_imported(text, path),))


def _imported(found: Checkpoint, path: Path) -> Import:
    """Raises: WeightsError for a file that does not fit what its shapes tell."""
    name = stage_of(found.kind)
    try:
        section = _section(found, path, _present().get(name, {}))
        checked = check_section(name, section)
        _check_fits(found, name, checked.encoder if name == _TEXT else checked.model, str(path))
        return Import(path, found, name, section, _note(found, path, section))
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:  # shapes of a stranger's file
        raise not_whole(str(path), found.kind, error) from error


def _note(found: Checkpoint, path: Path, section: Mapping[str, Any]) -> str | None:
    """What was assumed, or is to be done besides."""
    if found.kind in (*clip_files.KINDS, clip_files.GLIDE_TEXT):
        return clip_files.assumed(section, path)
    if found.kind == "kl" and "scale" not in _facts_beside(found.kind, path):
        scale = section["model"].get("scale")
        return f"scale {scale} is assumed: there is no config.json with a scaling_factor beside it"
    return LAYOUTS[found.kind].note(found.tensors)


def timm_section(path: Path, name: str, *, stage: str | None) -> Import:
    """The same for a file that is tried as this timm model: no tensor says of which it is. Raises as import_section."""
    from components.encoders.timm import described, imported

    if stage not in (None, _ENCODER):
        raise ConfigError("a timm file is imported by `encoder`", got=f"--stage {stage}", fix=f"--stage {_ENCODER}")
    tensors = read_tensors(path)
    pin = WeightsFile(uri=str(path), sha256=file_sha256(path))
    config = described(name, pin)
    imported(config)
    base = _present().get(_ENCODER, {}) or _blank(_ENCODER)
    section = {**base, "model": config.model_dump(mode="json"), "px": config.input_px, "train": None}
    if base.get("model", {}).get("name") == name:  # its file alone is another
        section |= {"model": {**base["model"], "weights": pin.model_dump()}, "px": base["px"]}
    section |= {"contrastive": None}
    check_section(_ENCODER, section)
    return Import(path, Checkpoint("timm", tensors, {}, {"timm": tensors}, pin.sha256), _ENCODER, section, None)


def write_sections(found: Import) -> tuple[list[str], str | None]:
    """Put the section into params.yaml, with the sampling options of others that have to follow.

    Returns the names of the sections, and what is still wrong with the whole, if anything is.
    """
    current = _present()
    followers = {} if found.stage == _ENCODER else _followers(found.checkpoint, current)
    changed = {**found.sections, **followers}
    for name, section in changed.items():
        current = {**current, name: section}
        _write(name, section, current)
    try:
        check_params(current, str(PARAMS))
    except ConfigError as error:
        return list(changed), error.what
    return list(changed), None


def _present() -> dict[str, Any]:
    return read_params(PARAMS) if PARAMS.is_file() else {}


def export_weights(project: Project, stage: str, path: Path, kind: str | None) -> tuple[str, Mapping[str, "Tensor"]]:
    """Write the weights of a stage's artifact in the reference's layout; returns its kind and the tensors.

    Raises: ConfigError, MissingError.
    """
    run = project.committed(stage)
    names = [name for name in (_CONFIG, _WEIGHTS, KEPT) if name in run.manifest.files]
    if _WEIGHTS not in names:
        raise ConfigError(f"the {stage} artifact has no weights", expected=" | ".join(sorted(set(_STAGES.values()))))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        fill(project.store, run, names, Path(folder))
        config = read_json(Path(folder) / _CONFIG)
        kind = kind or _kind_of(stage, config)
        kept = read_tensors(Path(folder) / KEPT) if KEPT in names else {}
        weights = read_tensors(Path(folder) / _WEIGHTS)
    if stage == _TEXT:
        weights = clip_files.own(weights)
    live = {name.removeprefix(LIVE): t for name, t in kept.items() if name.startswith(LIVE)}
    tensors = export_tensors(kind, weights, {name: t for name, t in kept.items() if not name.startswith(LIVE)})
    with replacing(path) as partial:
        write_checkpoint(partial, kind, tensors, live)
    return kind, tensors


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
    model = {**layout.facts(found.tensors), **_facts_beside(found.kind, path)}
    base = dict(current) if current else _blank(name)
    if name == _TEXT:
        return clip_files.text_section(base, model, pin, path)
    if name == _ENCODER:
        model = {"kind": model.pop("kind"), "weights": pin, **model}
        return {**base, "model": model, "px": _PUBLISHED_PX, "train": None, "contrastive": None}
    section = {**base, "model": model, "weights": pin, "train": None, **layout.section(found.tensors)}
    section |= {"codec": {"objective": None}, "rdm": {"init": None}, "pixels": {"init": None}}.get(name, {})
    sampling = layout.sampling(found.tensors)
    if sampling is not None and "preview" in base:
        section["preview"] = {**base["preview"], "sampling": sampling}
    return section


def _check_fits(found: Checkpoint, name: str, config: Any, source: str) -> None:
    """The file has all that the described model reads, and no more. Raises: WeightsError naming what differs."""
    import torch

    layout = LAYOUTS[found.kind]
    data = layout.data(found.tensors)
    with torch.device("meta"):
        module: Any = clip_files.tower(config) if name == _TEXT else config.build(*([] if data is None else [data]))
    weights = module.network.state_dict() if name == _ENCODER else module.state_dict()
    if name == _ENCODER and not any(part.startswith("head.") for part in weights):
        layout = type(layout)(headless=True)  # type: ignore[call-arg]
    layout.check(found.tensors, weights, source=source)


def _facts_beside(kind: str, path: Path) -> dict[str, Any]:
    """The scale of the latents from diffusers' config.json beside a kl file; no tensor's shape gives it."""
    config = path.with_name("config.json")
    if kind in clip_files.KINDS:
        return clip_files.facts_beside(kind, path)
    if kind != "kl" or not config.is_file():
        return {}
    found = read_json(config, WeightsError)
    if not isinstance(found, dict) or "scaling_factor" not in found:
        return {}
    return {"scale": validated(float, found["scaling_factor"], f"scaling_factor of {config}", WeightsError)}


def _followers(found: Checkpoint, current: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The section `sample` with options for the found generator, where it has options of the other kind."""
    sampling = LAYOUTS[found.kind].sampling(found.tensors)
    if stage_of(found.kind) != "pixels" or sampling is None or "sample" not in current:
        return {}
    if current["sample"]["pixels"]["kind"] == sampling["kind"]:
        return {}
    return {"sample": {**current["sample"], "pixels": sampling}}


def _dumped(data: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(data), sort_keys=False, default_flow_style=None, width=118)


def _blank(name: str) -> dict[str, Any]:
    """The rest of a section, when there is no params.yaml."""
    probe = {"batch_size": 64, "max_images": 5000, "k_neighbors": 5, "weight_decay": 0.001, "iterations": 100}
    sampling = {
        "kind": "diffusion",
        "sampler": "ddim",
        "steps": 250,
        "spacing": "reference",
        "eta": 1.0,
        "guidance": 0.0,
    }
    rest: dict[str, dict[str, Any]] = {
        "encoder": {"probe": probe},
        "codec": {},
        _TEXT: {},
        "rdm": {"ema": None, "check": {"n": 1000, "batch_size": 250, "sampling": sampling}},
        "pixels": {"ema": None, "preview": {"every": 1000, "n": 16, "sampling": None}},
        "guide": {},
        "upsampler": {"ema": None, "n_val": 256},
    }
    return {"numerics": 1, **({} if name == _TEXT else {"seed": 0}), **rest[name]}


def _write(name: str, section: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    """Replace one section of params.yaml, and its comments; the others keep theirs unless an anchor forbids it."""
    text = _dumped({name: section})
    old = PARAMS.read_text() if PARAMS.is_file() else ""
    pattern = re.compile(rf"^{name}:.*\n(?:[ \t#].*\n|\n)*", re.MULTILINE)
    new = pattern.sub(lambda _: text + "\n", old, count=1) if pattern.search(old) else old + text
    try:
        kept = parse_yaml(new, str(PARAMS)) == whole
    except ConfigError:
        kept = False
    if not kept:
        new = _dumped(whole)
    write_whole(PARAMS, new)


_OTHER_NAMES = {
    ("guide", "unet_encoder"): "adm-classifier",
    ("guide", "vit"): "glide-clip-image",
    ("upsampler", "adm"): "adm-upsampler",
    ("upsampler", "glide"): "glide-upsampler",
}
"""Kinds of files whose model is called something else in its stage."""


def _kind_of(stage: str, config: Mapping[str, Any]) -> str:
    """The layout of an artifact. Raises: ConfigError for one that the reference has no file for."""
    model = config.get("model", config)
    if stage == "rdm":
        return str(model.get("family", "rdm"))
    reads = any(condition["kind"] == "text_transformer" for condition in model.get("conditions", ()))
    kind = "glide" if model.get("kind") == "adm" and reads else str(model.get("kind"))
    kind = _OTHER_NAMES.get((stage, kind), kind)
    if stage == _TEXT and (encoder := model["encoder"] or {}).get("kind") == "clip":
        kind = clip_files.GLIDE_TEXT if clip_files.is_glides(encoder) else clip_files.TEXT
    if kind not in LAYOUTS:
        raise ConfigError(f"the reference has no file for a {kind}", expected=", ".join(LAYOUTS))
    return kind
