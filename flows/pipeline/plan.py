"""dvc.yaml, which follows from params.yaml and the code: written by `rcg plan`, committed like a lock file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from components.errors import ConfigError
from components.files import write_whole
from flows.identity.closure import PACKAGES, module_digests
from flows.identity.fingerprint import LOCK
from flows.pipeline.params import load_sections
from flows.pipeline.table import Sections, Stage, pipeline
from flows.yaml_files import parse_yaml

FILE = "dvc.yaml"
_HEADER = """\
# Generated from params.yaml and the code by `rcg plan`, which mends it after a change: do not edit, but commit it.
# `rcg repro` runs it. deps are folders; the fingerprints in the store are finer.
"""
_FIX = "write it anew and commit it: rcg plan"
_ROOT = Path(__file__).parents[2]


def plan_text(sections: Sections) -> str:
    """The dvc.yaml of these params with the code of this installation."""
    stages = pipeline(sections)
    metrics = [f"artifacts/{name}/metrics.json" for name in stages if name == "evaluate"]
    data = {"stages": {name: _block(stage) for name, stage in stages.items()}, "metrics": metrics}
    return _HEADER + yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=110)


def write_plan(root: Path, sections: Sections | None = None) -> list[str]:
    """Make root's dvc.yaml follow from its params.yaml, or from `sections`; returns what changed.

    Raises: ConfigError for wrong params.
    """
    path = root / FILE
    new, old = plan_text(load_sections(root / "params.yaml") if sections is None else sections), _read(path)
    if new == old:
        return []
    write_whole(path, new)
    return _changes(old, new)


def check_plan(root: Path) -> dict[str, Stage]:
    """The stages of root's params.yaml. Raises: ConfigError when its dvc.yaml does not follow from it and the code."""
    sections = load_sections(root / "params.yaml")
    new, old = plan_text(sections), _read(root / FILE)
    if old == new:
        return pipeline(sections)
    if old is None:
        raise ConfigError(f"{FILE} is missing here", got=root.absolute(), fix=_FIX)
    by_hand = "" if old.startswith(_HEADER) else f"\n  {FILE} was not written by this version of `rcg plan`"
    changes = "".join(f"\n  {line}" for line in _changes(old, new))
    raise ConfigError(f"{FILE} is stale: it does not follow from params.yaml and the code{by_hand}{changes}", fix=_FIX)


def _read(path: Path) -> str | None:
    return path.read_text(errors="replace") if path.is_file() else None


def _block(stage: Stage) -> dict[str, Any]:
    parents = [f"artifacts/{need.stage}/{need.file or 'manifest.json'}" for need in stage.needs]
    return {
        "cmd": f"rcg run {stage.name}",
        "params": [stage.name],
        "deps": [*(parents or [LOCK]), *code_deps(stage.module)],
        "outs": [f"artifacts/{stage.name}"],
    }


def code_deps(module: str) -> list[str]:
    """Rooms of components/ and folders of flows/stages/ that a stage's fingerprint counts."""
    found = {_dep(name) for name in module_digests(module)}
    return sorted(path for path in found if path is not None)


def _dep(module: str) -> str | None:
    """components.nn.vit -> components/nn, flows.stages.rdm.run -> flows/stages/rdm; None for the packages around."""
    parts = module.split(".")[: 2 if module.startswith("components.") else 3]
    path = "/".join(parts)
    if (_ROOT / f"{path}.py").is_file():
        return f"{path}.py"
    return None if module in (*PACKAGES, "flows.stages") else path


def _changes(old: str | None, new: str) -> list[str]:
    """What distinguishes two dvc.yamls, in one line for each stage."""
    if old is None:
        return [f"{FILE} is new"]
    before, after = _stages(old), _stages(new)
    lines = [f"- {name}" for name in before if name not in after]
    lines += [f"+ {name}" for name in after if name not in before]
    lines += [
        f"  {name}: {'; '.join(_differences(before[name], after[name]))}"
        for name in after
        if name in before and before[name] != after[name]
    ]
    return lines or ["only its layout or header"]


def _stages(text: str) -> dict[str, Any]:
    try:
        data = parse_yaml(text, FILE)
    except ConfigError:
        return {}
    stages = data.get("stages") if isinstance(data, dict) else None
    return stages if isinstance(stages, dict) else {}


def _differences(old: Any, new: Mapping[str, Any]) -> Iterator[str]:
    for key, value in new.items():
        was = old.get(key) if isinstance(old, dict) else None
        if was == value:
            continue
        if not isinstance(value, list) or not isinstance(was, list):
            yield f"{key} {was} -> {value}"
            continue
        gone, come = [v for v in was if v not in value], [v for v in value if v not in was]
        told = [*(f"-{v}" for v in gone), *(f"+{v}" for v in come)] or ["order"]
        yield f"{key} {' '.join(map(str, told))}"
