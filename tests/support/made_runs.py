"""Committed runs without a stage: files go in, an artifact comes out."""

from collections.abc import Mapping
from typing import Any

from components.store import Prefix, Store
from flows.identity.artifact import FileEntry, digest_of
from flows.identity.fingerprint import Identity
from flows.runs.records import CommittedRun, InputSpec, RunRecord, Spec, commit, run_prefix


def a_spec(stage: str, *, source: str = "demo", **changes: Any) -> Spec:
    """The spec of a run whose identity differs with `changes`."""
    values = {"schema_version": 1, "stage": stage, "params": {"numerics": 1}, "inputs": {"encode": "e"}, "modules": {}}
    identity = Identity.model_validate(values | changes)
    return Spec(
        schema_version=1,
        fingerprint=identity.fingerprint,
        identity=identity,
        inputs={"encode": InputSpec(prefix=f"runs/encode/{'e' * 64}", digest="e" * 64)},
        source=source,
        collection_lock=None,
        module="none",
    )


def a_record(stage: str, fingerprint: str, digest: str, keys: Mapping[str, str], attempt: int = 1) -> RunRecord:
    return RunRecord(
        schema_version=1,
        stage=stage,
        fingerprint=fingerprint,
        digest=digest,
        attempt=attempt,
        keys=dict(keys),
        world_size=1,
        device="cpu",
        versions={},
        host="here",
        context={},
        started_ms=1,
        ended_ms=2,
        adopted_from=None,
        adopted_because=None,
    )


def make_run(
    store: Store, spec: Spec, files: Mapping[str, bytes], *, attempt: int = 1, memos: Mapping[str, str] | None = None
) -> CommittedRun:
    """Store the files as an attempt's and commit them. `memos`: names whose bytes lie at another key."""
    folder = Prefix(store, spec.prefix)
    folder.put("spec.json", spec.to_json())
    folder.put(f"attempts/{attempt}.json", b"{}")
    keys = {name: f"{spec.prefix}/out/{attempt}/{name}" for name in files} | dict(memos or {})
    for name, data in files.items():
        store.put(keys[name], data)
    entries = {name: FileEntry(size=len(data), sha256=digest_of(data)) for name, data in files.items()}

    def record(digest: str) -> RunRecord:
        return a_record(spec.stage, spec.fingerprint, digest, keys, attempt)

    assert spec.prefix == run_prefix(spec.stage, spec.fingerprint)
    return commit(store, spec.prefix, entries, record)
