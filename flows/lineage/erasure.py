"""Erase what was made of one picture, wherever the store has it, and name the models that were trained on it.

Erased are the shards of the cache that hold the picture and, of every run that read its collection, pictures and pages
that may show it, maps of representations, and samples of real representations. Weights, manifests and metrics stay, and
so do its name, digest and split, without which it could come back unnoticed. A tombstone records what was done.
"""

import fnmatch
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.collection.images import index_name
from components.errors import ConfigError, DataError, MissingError, RcgError
from components.store.base import Prefix, Store
from flows.execution.project import Project
from flows.gate.champion import now_ms, open_aliases, who
from flows.identity.artifact import SCHEMA, file_entry
from flows.lineage.tombstones import Tombstone
from flows.pipeline.table import KINDS
from flows.runs.lookup import read_spec
from flows.runs.records import ERASED, CommittedRun, Erasure, load_run

_log = logging.getLogger(__name__)
_SHOWING = ("pictures/*", "report.html", "plots/representations.json")
_ORACLE = ("images/*", "pictures/*")


@dataclass(frozen=True)
class Forgotten:
    """What was erased, or would be."""

    names: list[str]
    """Of the picture, in the source."""
    n_collections: int
    n_runs: int
    keys: list[str]
    """Objects in the store."""
    models: list[str]
    """Trained on the picture; their weights stay."""


@dataclass
class _Found:
    """Where the picture is listed."""

    sha256s: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    chunks: dict[str, set[str]] = field(default_factory=dict)
    """Content digest of a collection -> its chunks that have the picture."""
    trained: set[str] = field(default_factory=set)
    """Content digests of the collections in whose train split it is."""


def forget(project: Project, image: str, *, dry_run: bool) -> Forgotten:
    """Erase what was made of a picture, and leave a tombstone; with `dry_run` only find it.

    `image`: its name in the source, its sha256, or a file with its bytes.
    Raises: MissingError when no collection lists it, ConfigError while the source still has it.
    """
    found = _find(project.store, image)
    _check_source(project, found)
    plan = dict(_plan(project.store, found))
    planned = {key for _, names in plan.values() for key in names.values()}
    keys = sorted(planned.union(_loose(project.store, found)))
    models = _models(project, found)
    if not dry_run:
        _erase(project.store, plan, keys)
        for sha256 in found.sha256s:
            stone = Tombstone(
                schema_version=SCHEMA,
                sha256=sha256,
                keys=sorted(found.keys),
                collections=sorted(found.chunks),
                models=models,
                erased=keys,
                who=who(),
                time_ms=now_ms(),
            )
            project.store.put(f"forgotten/{sha256}.json", stone.to_json())
    return Forgotten(sorted(found.keys), len(found.chunks), len(plan), keys, models)


def _find(store: Store, image: str) -> _Found:
    import pyarrow.compute as pc

    wanted = image
    if Path(image).is_file():
        wanted = file_entry(Path(image)).sha256
    column = "sha256" if re.fullmatch("[0-9a-f]{64}", wanted) else "key"
    found = _Found()
    for run in _runs(store, "collect"):
        for name in fnmatch.filter(run.keys, index_name("*")):
            table = _table(store, run.keys[name])
            rows = table.filter(pc.equal(table[column], wanted)).to_pylist()
            if rows:
                found.chunks.setdefault(run.digest, set()).add(name.removeprefix("index/").removesuffix(".arrow"))
                found.sha256s.update(row["sha256"] for row in rows)
                found.keys.update(row["key"] for row in rows)
                found.trained.update({run.digest} if any(row["split"] == "train" for row in rows) else ())
    if not found.chunks:
        raise MissingError(
            "no collection in the store lists this picture",
            got=image,
            expected="its name in the source, its sha256, or a file with its bytes",
            fix="check RCG_STORE",
        )
    return found


def _table(store: Store, key: str) -> Any:
    from components.collection.images import read_index

    return read_index(store.get(key), key)


def _runs(store: Store, stage: str) -> Iterator[CommittedRun]:
    """Every committed run of a stage that can be read."""
    for prefix in _prefixes(store, stage):
        try:
            run = load_run(store, prefix)
        except RcgError as error:
            _log.warning("%s cannot be read and is left alone: %s", prefix, error.what)
            continue
        if run is not None:
            yield run


def _prefixes(store: Store, stage: str) -> list[str]:
    return sorted({"/".join(info.key.split("/")[:3]) for info in store.list(f"runs/{stage}")})


def _check_source(project: Project, found: _Found) -> None:
    import hashlib

    from components.collection.source import open_source

    source = open_source(project.settings.source, follows_links=True)
    for key in sorted(found.keys):
        try:
            data = source.read(key)
        except DataError:
            continue
        if hashlib.sha256(data).hexdigest() in found.sha256s:
            raise ConfigError(
                "the source still has the picture, so it would come back",
                got=f"{key} in {source.uri}",
                fix="delete it there first, then run the same command",
            )


def _plan(store: Store, found: _Found) -> Iterator[tuple[str, tuple[CommittedRun | None, dict[str, str]]]]:
    """Prefix of each run that read the collection -> (the run if it is finished, name -> key of its files to erase)."""
    digests = set(found.chunks)
    chunks = {chunk for names in found.chunks.values() for chunk in names}
    for stage in KINDS:
        for prefix in _prefixes(store, stage):
            spec = read_spec(store, stage, prefix.rpartition("/")[2])
            run = _loaded(store, prefix)
            above = {parent.digest for parent in spec.inputs.values()} if spec is not None else set()
            if (run is None or run.digest not in digests) and not above & digests:
                continue
            if run is not None:
                digests.add(run.digest)
            oracle = spec is not None and spec.identity.params.get("representations") == "oracle"
            files = dict(_files(store, prefix, run, _patterns(stage, chunks, oracle=oracle)))
            if files:
                yield prefix, (run, files)


def _loaded(store: Store, prefix: str) -> CommittedRun | None:
    try:
        return load_run(store, prefix)
    except RcgError:
        return None


def _patterns(stage: str, chunks: set[str], *, oracle: bool) -> list[str]:
    if stage == "sample":
        return list(_ORACLE) if oracle else []
    shards = [f"shards/{chunk}.arrow" for chunk in sorted(chunks)] if stage == "encode" else []
    return [*_SHOWING, *shards] if stage != "bundle" else []


def _files(store: Store, prefix: str, run: CommittedRun | None, patterns: list[str]) -> Iterator[tuple[str, str]]:
    """(name, key): pictures among its events; all outputs of an unfinished run, matching ones of a finished run."""
    if not patterns:
        return
    folder = Prefix(store, prefix)
    for info in folder.list("events"):
        if "/images/" in info.key:
            yield info.key, f"{prefix}/{info.key}"
    if run is None:
        yield from ((info.key, f"{prefix}/{info.key}") for info in folder.list("out"))
        return
    for name in run.manifest.files.keys() - run.erased:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            yield name, run.keys[name]


def _loose(store: Store, found: _Found) -> Iterator[str]:
    """Keys of shards with the picture that interrupted runs left and no finished run names."""
    named = {key for run in _runs(store, "encode") for key in run.keys.values()}
    for info in store.list("memo/encode"):
        if info.key.endswith("/entry.json") or info.key in named:
            continue
        if found.sha256s.intersection(_table(store, info.key)["sha256"].to_pylist()):
            yield info.key


def _models(project: Project, found: _Found) -> list[str]:
    """Versions and unregistered bundles whose collection has the picture in its train split."""
    try:
        versions = open_aliases(project)[1].all()
    except RcgError as error:
        _log.warning("the registry was not asked: %s", error.what)
        versions = []
    named = {v.digest: f"models:/{project.settings.tracking.model_name}/{v.number}" for v in versions}
    models = []
    for run in _runs(project.store, "bundle"):
        spec = read_spec(project.store, "bundle", run.fingerprint)
        if spec is not None and spec.inputs["collect"].digest in found.trained:
            models.append(named.get(run.digest, f"bundle {run.digest[:10]}"))
    return sorted(models)


def _erase(store: Store, plan: Mapping[str, tuple[CommittedRun | None, dict[str, str]]], keys: list[str]) -> None:
    """Record in each run what is erased, then delete: a run that lacks files without a record counts as damaged."""
    for prefix, (run, files) in plan.items():
        if run is not None:
            names = sorted({*run.erased, *(name for name in files if name in run.manifest.files)})
            Prefix(store, prefix).put(ERASED, Erasure(schema_version=SCHEMA, files=names).to_json())
    for key in keys:
        store.delete(key)
