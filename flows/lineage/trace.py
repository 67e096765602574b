"""What a picture, a model or a stage's artifact was made of; a bundle answers offline, by itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.bundle.integrity import bundle_digest
from components.bundle.provenance import Provenance, read_provenance
from components.documents import parse_json
from components.errors import ArtifactError, MissingError, RcgError, TamperedError
from components.store.base import Store
from flows.execution.project import Project
from flows.identity.artifact import digest_of, read_head
from flows.lineage.origin import bundle_of, read_lineage
from flows.lineage.tombstones import tombstones
from flows.pipeline.table import KINDS
from flows.runs.ancestry import CONTEXT, Context, Facts, ancestry
from flows.runs.records import find_run, read_json_file


@dataclass(frozen=True)
class Lineage:
    """What was asked for, and all that is known of each artifact that it was made of."""

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


def lineage_of(reference: str, project: Project, model: str | None = None) -> Lineage:
    """Of a picture, samples.json, manifest.json, a stage, a bundle folder or models:/name@alias.

    `model` names the bundle of a picture. Raises: MissingError, ArtifactError, TamperedError.
    """
    found = _found(reference, project, model)
    collect = found.stages.get("collect")
    return found if collect is None else replace(found, erased=_erased(collect.content, project))


def _erased(collection: str, project: Project) -> tuple[str, ...]:
    """What the store's tombstones say of a collection; nothing where no store can be read."""
    try:
        stones = tombstones(project.store)
    except RcgError:
        return ()
    return tuple(
        f"{stone.sha256[:10]} on {datetime.fromtimestamp(stone.time_ms / 1000, UTC):%Y-%m-%d}; trained on it: "
        f"{', '.join(stone.models) or 'no model'}"
        for stone in stones
        if collection in stone.collections
    )


def _found(reference: str, project: Project, model: str | None) -> Lineage:
    path = Path(reference)
    if reference in KINDS:
        return _of_run(reference, project)
    if path.suffix.lower() == ".png":
        return _of_picture(path, project, model)
    if path.is_file():
        return _of_manifest(path, project)
    return _of_bundle(reference, project)


def _of_run(stage: str, project: Project, digest: str | None = None) -> Lineage:
    """Of a stage's artifact in the store: the one that artifacts/ shows, or the one with this content."""
    run = project.committed(stage) if digest is None else find_run(project.store, stage, digest)
    if run is None:
        raise MissingError(
            f"the store has no {stage} artifact with this content",
            got=digest,
            expected=project.store.uri,
            fix="set RCG_STORE to the store that has it",
        )
    stages = ancestry(project.store, run)
    metrics = {}
    if "metrics.json" in run.keys and stage == "evaluate":
        metrics = read_json_file(project.store, run, "metrics.json")
    return Lineage(f"{stage} {run.digest[:10]}", stages, metrics=metrics)


def _of_manifest(path: Path, project: Project) -> Lineage:
    """Of a sample manifest: samples.json, or the manifest.json of any stage."""
    data = path.read_bytes()
    value = parse_json(data, str(path))
    if isinstance(value, dict) and isinstance(value.get("stage"), str):
        read_head(data, value["stage"], str(path))
        return _of_run(value["stage"], project, digest_of(data))
    if not isinstance(value, dict) or not isinstance(value.get("parents"), dict):
        raise ArtifactError("not a manifest", got=path, expected="samples.json or manifest.json of a stage")
    return Lineage(f"samples {path}", _from_store(value["parents"], project.store))


def _from_store(contents: Mapping[str, str], store: Store) -> dict[str, Facts]:
    """Facts of artifacts that are known by content, and of all that they were made of; the content alone for others."""
    found: dict[str, Facts] = {}
    for stage, content in contents.items():
        run = find_run(store, stage, content)
        above = {stage: Facts(stage=stage, content=content)} if run is None else ancestry(store, run)
        found |= {name: facts for name, facts in above.items() if name not in found}
    return found


def _of_picture(path: Path, project: Project, model: str | None) -> Lineage:
    if not path.is_file():
        raise MissingError("there is no such picture", got=path)
    claim = read_provenance(path.read_bytes())
    picture = claim.model_dump(mode="json", exclude_none=True)
    subject = _subject(path, claim)
    try:
        folder = bundle_of(claim, model, project)
    except MissingError:
        if claim.bundle is not None:
            raise
        return Lineage(subject, _from_store(claim.parents, project.store), picture=picture)
    found = _of_bundle(str(folder), project)
    if claim.bundle is not None and claim.bundle != found.bundle:
        raise ArtifactError(
            "the picture names another bundle", got=f"{folder} is {found.bundle}", expected=claim.bundle
        )
    return Lineage(subject, found.stages, found.bundle, picture, found.collection, found.configs, found.metrics)


def _subject(path: Path, claim: Provenance) -> str:
    what = f"picture {claim.index}" if claim.index is not None else f"a grid of {claim.shown}"
    return f"{path.name}: {what} of seed {claim.seed}"


def _of_bundle(reference: str, project: Project) -> Lineage:
    path = Path(reference)
    if not path.is_dir():
        from flows.registry import resolve

        path = resolve(reference, project.tracking, project.models)
    lineage = read_lineage(path)
    digest = bundle_digest(path)
    known = _context(path, digest)
    stages = {}
    for stage, parent in lineage["parents"].items():
        facts = known.get(stage)
        if facts is None or facts.content != parent["content"]:
            facts = Facts(stage=stage, content=parent["content"])
        stages[stage] = facts
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
            "the bundle's files are not those that were committed",
            got=digest,
            expected=own.content,
            fix="copy or pull the bundle again",
        )
    return stages
