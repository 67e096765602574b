"""`rcg lineage`: what a picture, a model or a stage's artifact was made of; a bundle answers offline, by itself."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.bundle.provenance import Provenance, bundle_digest, read_provenance
from components.errors import ArtifactError, MissingError, RcgError, TamperedError
from flows.execution.project import Project, committed
from flows.identity.artifact import digest_of, parse_json, read_head
from flows.lineage.origin import bundle_of, read_lineage
from flows.lineage.tombstones import tombstones
from flows.pipeline.table import KINDS
from flows.runs.ancestry import CONTEXT, Context, Facts, ancestry, made_at
from flows.runs.records import find_run

_WIDTH = 100


@dataclass(frozen=True)
class Lineage:
    """The answer: what was asked for, and all that is known of each artifact above it."""

    subject: str
    stages: Mapping[str, Facts]
    """In the order in which they were made."""
    bundle: str | None = None
    """Content digest of the bundle."""
    picture: Mapping[str, Any] | None = None
    """Provenance in the picture's file."""
    collection: Mapping[str, Any] = field(default_factory=dict)
    """Chunks with their digests, and classes."""
    configs: Mapping[str, Any] = field(default_factory=dict)
    """Of the parts of a bundle."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the evaluation."""
    erased: tuple[str, ...] = ()
    """Pictures of its collection that were erased since, in words."""

    def as_json(self) -> dict[str, Any]:
        stages = {
            name: facts.model_dump(mode="json", exclude_none=True) | {"seeds": facts.seeds}
            for name, facts in self.stages.items()
        }
        named = ("bundle", "picture", "collection", "configs", "metrics", "erased")
        others = {name: getattr(self, name) for name in named}
        return {"subject": self.subject, "stages": stages, **{k: v for k, v in others.items() if v}}


def lineage_text(reference: str, *, model: str | None = None, as_json: bool) -> str:
    """What to print for a picture, samples.json, manifest.json, a stage, a bundle folder or models:/name@alias."""
    found = lineage_of(reference, model)
    if as_json:
        return json.dumps(found.as_json(), indent=2, sort_keys=True)
    return "\n".join(_lines(found))


def lineage_of(reference: str, model: str | None = None) -> Lineage:
    """Raises: MissingError, ArtifactError, TamperedError. `model` names the bundle of a picture."""
    found = _found(reference, model)
    collect = found.stages.get("collect")
    return found if collect is None else replace(found, erased=_erased(collect.content))


def _erased(collection: str) -> tuple[str, ...]:
    """What the store's tombstones say of a collection; nothing where there is no store to ask."""
    try:
        stones = tombstones(Project.here().store)
    except RcgError:
        return ()
    return tuple(
        f"{stone.sha256[:10]} on {datetime.fromtimestamp(stone.time_ms / 1000, UTC):%Y-%m-%d}; trained on it: "
        f"{', '.join(stone.models) or 'no model'}"
        for stone in stones
        if collection in stone.collections
    )


def _found(reference: str, model: str | None) -> Lineage:
    path = Path(reference)
    if reference in KINDS:
        return _of_run(reference, reference, None)
    if path.suffix.lower() == ".png":
        return _of_picture(path, model)
    if path.is_file():
        return _of_manifest(path)
    return _of_bundle(reference)


def _of_run(subject: str, stage: str, digest: str | None) -> Lineage:
    """Of a stage's artifact in the store: the one that artifacts/ shows, or the one with this content."""
    project = Project.here()
    run = committed(project, stage) if digest is None else find_run(project.store, stage, digest)
    if run is None:
        raise MissingError(
            f"the store has no {stage} artifact with this content", got=digest, expected=project.store.uri,
            fix="set RCG_STORE to the store that has it",
        )  # fmt: skip
    stages = ancestry(project.store, run)
    metrics = {}
    if "metrics.json" in run.keys and stage in ("evaluate", "sample"):
        metrics = parse_json(project.store.get(run.keys["metrics.json"]), "metrics.json")
    return Lineage(f"{subject} {run.digest[:10]}", stages, metrics=metrics if stage == "evaluate" else {})


def _of_manifest(path: Path) -> Lineage:
    """Of a sample manifest: samples.json, or the manifest.json of any stage."""
    data = path.read_bytes()
    value = parse_json(data, str(path))
    if isinstance(value, dict) and isinstance(value.get("stage"), str):
        read_head(data, value["stage"], str(path))
        return _of_run(value["stage"], value["stage"], digest_of(data))
    if not isinstance(value, dict) or not isinstance(value.get("parents"), dict):
        raise ArtifactError("not a manifest", got=path, expected="samples.json or manifest.json of a stage")
    return Lineage(f"samples {path}", _from_store(value["parents"]))


def _from_store(contents: Mapping[str, str]) -> dict[str, Facts]:
    """Everything above artifacts that are known by content; what the store does not have is only named."""
    store = Project.here().store
    found: dict[str, Facts] = {}
    for stage, content in contents.items():
        run = find_run(store, stage, content)
        above = {stage: Facts(stage=stage, content=content)} if run is None else ancestry(store, run)
        found |= {name: facts for name, facts in above.items() if name not in found}
    return found


def _of_picture(path: Path, model: str | None) -> Lineage:
    if not path.is_file():
        raise MissingError("there is no such picture", got=path)
    claim = read_provenance(path.read_bytes())
    picture = claim.model_dump(mode="json", exclude_none=True)
    subject = _spoken(path, claim)
    try:
        folder = bundle_of(claim, model, Project.here())
    except MissingError:
        if claim.bundle is not None:
            raise
        return Lineage(subject, _from_store(claim.parents), picture=picture)
    found = _of_bundle(str(folder))
    if claim.bundle is not None and claim.bundle != found.bundle:
        raise ArtifactError(
            "the picture names another bundle", got=f"{folder} is {found.bundle}", expected=claim.bundle
        )
    return Lineage(subject, found.stages, found.bundle, picture, found.collection, found.configs, found.metrics)


def _spoken(path: Path, claim: Provenance) -> str:
    what = f"picture {claim.index}" if claim.index is not None else f"a grid of {claim.shown}"
    return f"{path.name}: {what} of seed {claim.seed}"


def _of_bundle(reference: str) -> Lineage:
    path = Path(reference)
    if not path.is_dir():
        from flows.registry import resolve

        path = resolve(reference, Project.here().tracking)
    lineage = read_lineage(path)
    digest = bundle_digest(path)
    known = _context(path, digest)
    stages = {}
    for stage, parent in lineage["parents"].items():
        facts = known.get(stage)
        stages[stage] = facts if facts is not None and facts.content == parent["content"] else Facts(
            stage=stage, content=parent["content"]
        )  # fmt: skip
    stages |= {name: facts for name, facts in known.items() if name not in stages}
    stages.setdefault("bundle", Facts(stage="bundle", content=digest, params=lineage.get("params")))
    ordered = {name: stages[name] for name in KINDS if name in stages}
    configs = {stage: parent["config"] for stage, parent in lineage["parents"].items() if "config" in parent}
    metrics = lineage["parents"].get("evaluate", {}).get("metrics", {})
    subject = f"{reference} is bundle {digest[:10]}"
    return Lineage(subject, ordered, digest, None, lineage.get("collection", {}), configs, metrics)


def _context(folder: Path, digest: str) -> dict[str, Facts]:
    """context.json of a bundle that has one. Raises: TamperedError when it was kept for other files than these."""
    path = folder / CONTEXT
    if not path.is_file():
        return {}
    stages = Context.parse(path.read_bytes(), str(path)).stages
    own = stages.get("bundle")
    if own is not None and own.content != digest:
        raise TamperedError(
            "the bundle's files are not those that were committed", got=digest, expected=own.content,
            fix="copy or pull the bundle again",
        )  # fmt: skip
    return stages


def _lines(found: Lineage) -> list[str]:
    """The answer as an outline, most asked for first."""
    lines = [found.subject]
    if found.picture is not None:
        lines += ["", "picture", *_outline({k: v for k, v in found.picture.items() if k != "parents"}, "  ")]
    if found.collection:
        chunks = found.collection["chunks"]
        count = sum(chunk["count"] for chunk in chunks)
        lines += ["", f"collection  {count:,} pictures in {len(chunks)} chunk(s)"]
    lines += [
        "",
        *_table([("stage", "content", "code", "git", "image", "made", "on"), *map(_row, found.stages.values())]),
    ]
    seeds = {name: facts.seeds for name, facts in found.stages.items() if facts.seeds}
    if seeds:
        shown = (f"{name} {', '.join(f'{k}={v}' for k, v in its.items())}" for name, its in seeds.items())
        lines += ["", "seeds", *(f"  {text}" for text in shown)]
    if found.erased:
        lines += ["", "erased since, of its collection", *(f"  {text}" for text in found.erased)]
    lines += list(_more(found))
    return lines


def _more(found: Lineage) -> Iterator[str]:
    jobs = {n: f.context["rayjob"] for n, f in found.stages.items() if f.context and "rayjob" in f.context}
    if jobs:
        yield from ("", "RayJobs", *(f"  {name}: {job}" for name, job in jobs.items()))
    for versions, names in _environments(found.stages).items():
        text = ", ".join(f"{name} {version}" for name, version in json.loads(versions).items())
        yield from ("", f"environment of {', '.join(names)}", f"  {text}")
    for name, facts in found.stages.items():
        if facts.adopted_from is not None:
            yield from ("", f"{name} was adopted from run {facts.adopted_from[:10]}: {facts.adopted_because}")
    params = {name: facts.params for name, facts in found.stages.items() if facts.params}
    if params:
        yield from ("", "params", *_outline(params, "  "))
    if found.metrics:
        yield from ("", "metrics", *_outline(found.metrics, "  "))


def _environments(stages: Mapping[str, Facts]) -> dict[str, list[str]]:
    """Library versions (as JSON) -> stages made with them."""
    found: dict[str, list[str]] = {}
    for name, facts in stages.items():
        if facts.versions:
            found.setdefault(json.dumps(facts.versions, sort_keys=True), []).append(name)
    return found


def _row(facts: Facts) -> tuple[str, ...]:
    context = facts.context or {}
    git = context.get("git_commit", "")[:10] + ("+" if context.get("git_dirty") == "true" else "")
    workers = f"{facts.world_size} x {facts.device}" if facts.world_size is not None else "not known here"
    return (facts.stage, facts.content[:10], (facts.code or "")[:10], git, context.get("image", "")[-20:],
            made_at(facts), workers)  # fmt: skip


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Aligned columns; those that hold nothing are left out."""
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in kept}
    return ["  ".join(row[i].ljust(widths[i]) for i in kept).rstrip() for row in rows]


def _outline(value: Mapping[str, Any], indent: str) -> list[str]:
    """Nested data, one line per leaf or short branch."""
    lines = []
    for key, item in value.items():
        text = f"{indent}{key}: {item if isinstance(item, str) else json.dumps(item)}"
        if isinstance(item, Mapping) and item and len(text) > _WIDTH:
            lines += [f"{indent}{key}", *_outline(item, indent + "  ")]
        else:
            lines.append(text)
    return lines
