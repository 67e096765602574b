"""`rcg lineage`: what a stage's artifact or a model was made of; a bundle answers offline from its own lineage.json."""

import json
from pathlib import Path
from typing import Any

from components.errors import ArtifactError
from flows.driver import Project, committed
from flows.pipeline import STAGES
from flows.runs.lookup import read_spec
from flows.runs.records import CommittedRun


def lineage_text(reference: str, *, as_json: bool) -> str:
    """What to print for a stage name, a bundle folder or models:/name@alias."""
    found = _of_stage(reference) if reference in STAGES else _of_bundle(reference)
    return json.dumps(found, indent=2, sort_keys=True) if as_json else "\n".join(_lines(found))


def _of_stage(name: str) -> dict[str, Any]:
    project = Project.here()
    run = committed(project, name)
    return {"artifact": _facts(project, run), "made_of": _ancestors(project, run)}


def _ancestors(project: Project, run: CommittedRun) -> dict[str, Any]:
    """Every artifact above the run, by stage."""
    from flows.runs.records import load_run

    found: dict[str, Any] = {}
    spec = read_spec(project.store, run.stage, run.fingerprint)
    for stage, parent in (spec.inputs if spec is not None else {}).items():
        above = load_run(project.store, parent.prefix)
        if above is None:
            found[stage] = {"content": parent.digest, "state": "no longer in the store"}
            continue
        found |= _ancestors(project, above)
        found[stage] = _facts(project, above)
    return found


def _facts(project: Project, run: CommittedRun) -> dict[str, Any]:
    spec = read_spec(project.store, run.stage, run.fingerprint)
    record = run.record
    facts: dict[str, Any] = {
        "stage": run.stage,
        "content": run.digest,
        "fingerprint": run.fingerprint,
        "attempt": record.attempt,
        "workers": record.world_size,
        "device": record.device,
        "versions": record.versions,
        "host": record.host,
        **record.context,
    }
    if spec is not None:
        facts |= {"code": spec.identity.code, "params": spec.identity.params, "inputs": spec.identity.inputs}
    if record.adopted_from is not None:
        facts |= {"adopted_from": record.adopted_from, "adopted_because": record.adopted_because}
    return facts


def _of_bundle(reference: str) -> dict[str, Any]:
    path = Path(reference)
    if not path.is_dir():
        from flows.registry import resolve

        project = Project.here()
        path = resolve(reference, project.tracking)
    file = path / "lineage.json"
    if not file.is_file():
        raise ArtifactError("no lineage here", got=reference, expected="a stage, a bundle folder or models:/name@alias")
    found: dict[str, Any] = json.loads(file.read_text())
    context = path / "context.json"
    return found | ({"context": json.loads(context.read_text())} if context.is_file() else {})


def _lines(value: Any, indent: str = "") -> list[str]:
    """Nested data as an indented outline."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines += [f"{indent}{key}", *_lines(item, indent + "  ")]
        else:
            shown = item if isinstance(item, str) else json.dumps(item)
            lines.append(f"{indent}{key}: {shown}")
    return lines
