"""How an artifact and all above it came about, told by the store; and context.json, what a bundle carries of it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from components.errors import ArtifactError, ConflictError, MissingError
from components.store.base import Store
from flows.identity.artifact import SCHEMA, Millis, Record, pack_manifest
from flows.runs.lookup import read_spec
from flows.runs.records import MANIFEST, CommittedRun, load_run

CONTEXT = "context.json"
"""Beside a bundle's files, outside its digest: when, where and from which code everything in it was made."""
_CIRCUMSTANCES = (
    "attempt",
    "world_size",
    "device",
    "versions",
    "host",
    "context",
    "started_ms",
    "ended_ms",
    "adopted_from",
    "adopted_because",
)


class Facts(Record):
    """What is known of one artifact. None: not known any more, e.g. because its run has left the store."""

    stage: str
    content: str
    """Content digest."""
    fingerprint: str | None = None
    params: dict[str, Any] | None = None
    """The stage's section of params.yaml."""
    inputs: dict[str, str] | None = None
    """Parent -> content digest, or sha256 of the one file of it that counts."""
    code: str | None = None
    """Digest of the code."""
    attempt: int | None = None
    world_size: int | None = None
    device: str | None = None
    versions: dict[str, str] | None = None
    host: str | None = None
    context: dict[str, str] | None = None
    """git commit, image, RayJob: whatever the caller knew."""
    started_ms: Millis | None = None
    ended_ms: Millis | None = None
    adopted_from: str | None = None
    adopted_because: str | None = None

    @property
    def seeds(self) -> dict[str, int]:
        """Every seed among the params, by its place."""
        return dict(_seeds(self.params or {}))


class Context(Record):
    """context.json."""

    schema_version: int
    stages: dict[str, Facts]


def _seeds(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, int]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _seeds(item, f"{above}{key}.")
        elif key == "seed" and isinstance(item, int):
            yield f"{above}{key}", item


def facts_of(store: Store, run: CommittedRun) -> Facts:
    """What the store knows of one committed run."""
    values: dict[str, Any] = {"stage": run.stage, "content": run.digest, "fingerprint": run.fingerprint}
    values |= {name: getattr(run.record, name) for name in _CIRCUMSTANCES}
    spec = read_spec(store, run.stage, run.fingerprint)
    if spec is not None:
        values |= {"params": spec.identity.params, "inputs": spec.identity.inputs, "code": spec.identity.code}
    return Facts(**values)


def ancestry(store: Store, run: CommittedRun) -> dict[str, Facts]:
    """The run and every artifact above it, by stage, parents first. Runs that left the store are named by content."""
    found: dict[str, Facts] = {}
    _gather(store, run, found)
    return found


def _gather(store: Store, run: CommittedRun, found: dict[str, Facts]) -> None:
    """Add the run and what is above it to `found`; a stage that is there is not looked up again."""
    spec = read_spec(store, run.stage, run.fingerprint)
    for stage, parent in (spec.inputs if spec is not None else {}).items():
        if stage in found:
            continue
        try:
            above = load_run(store, parent.prefix)
        except ArtifactError:  # damaged: what is known of it is its content
            above = None
        if above is None:
            found[stage] = Facts(stage=stage, content=parent.digest)
        else:
            _gather(store, above, found)
    found[run.stage] = facts_of(store, run)


def above(store: Store, run: CommittedRun, stage: str) -> CommittedRun | None:
    """The run of a stage that this one came from, at once or through others; None if it left the store."""
    spec = read_spec(store, run.stage, run.fingerprint)
    for name, parent in (spec.inputs if spec is not None else {}).items():
        found = load_run(store, parent.prefix)
        if found is not None and name != stage:
            found = above(store, found, stage)
        if found is not None:
            return found
    return None


def made_at(facts: Facts) -> str:
    """When it was finished, in UTC, to the minute; empty when that is not known."""
    if facts.ended_ms is None:
        return ""
    return f"{datetime.fromtimestamp(facts.ended_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def took(facts: Facts) -> str:
    """How long its last attempt ran; empty when that is not known, or a clock went back meanwhile."""
    if facts.started_ms is None or facts.ended_ms is None or facts.ended_ms < facts.started_ms:
        return ""
    return spoken_duration((facts.ended_ms - facts.started_ms) / 1000)


def spoken_duration(seconds: float) -> str:
    """About as exact as one would say it: 0.3 s, 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def bundle_folder(run: CommittedRun) -> str | None:
    """The folder in the store that is the bundle; None for other stages, and bundles that lie in no one folder."""
    folders = {key.removesuffix(f"/{name}") for name, key in run.keys.items()}
    return folders.pop() if run.stage == "bundle" and len(folders) == 1 else None


def keep_context(store: Store, run: CommittedRun) -> bytes | None:
    """context.json of a bundle, written at its side when it is first asked for; None for other stages.

    Later calls return the first answer: the runs above may leave the store, and what DVC tracks must not change. Its
    manifest is put there, too: whoever loads the folder checks it by that.
    """
    folder = bundle_folder(run)
    if folder is None:
        return None
    manifest, beside = pack_manifest(run.manifest)[0], f"{folder}/{MANIFEST}"
    if store.head(beside) is None or store.get(beside) != manifest:
        store.put(beside, manifest)
    key = f"{folder}/{CONTEXT}"
    try:
        return store.get(key)
    except MissingError:
        data = Context(schema_version=SCHEMA, stages=ancestry(store, run)).to_json()
    try:
        store.put(key, data, if_absent=True)
    except ConflictError:
        return store.get(key)
    return data
