"""Moving committed runs: accept one under another fingerprint, copy to another store, fetch into a folder."""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from components.errors import ArtifactError, ConflictError, MissingError
from components.store.base import Prefix, Store
from flows.artifact import SCHEMA, FileEntry, Record, file_entry, listing_name
from flows.fingerprint import Difference, differences
from flows.lease import FencedStore, LeaseRecord, Watch, acquire
from flows.lookup import read_spec
from flows.runs import MANIFEST, CommittedRun, RunRecord, Spec, commit, full_fingerprint, load_run, run_prefix, tampered
from flows.stored import Memo
from flows.workspace import fill

_SMALL = ("spec.json", "adopted.json", "run.json")


class Adoption(Record):
    """adopted.json: whose outputs were accepted, why, and what was different."""

    schema_version: int
    source: str
    reason: str
    differences: list[str]
    time_ms: int


def adopt(store: Store, spec: Spec, source: str, reason: str, *, heartbeat_s: float = 10.0) -> CommittedRun:
    """Commit the outputs of run `source` (a fingerprint or its start) as those of `spec`; no byte is copied.

    Raises: ArtifactError when the inputs differ (other data are no refactoring) or spec has other outputs already;
    MissingError for an unknown or unfinished source.
    """
    if not reason.strip():
        raise ArtifactError(
            "adopting needs a reason", fix="--reason 'what makes the old result right for the new code'"
        )
    fingerprint = full_fingerprint(store, spec.stage, source)
    run = load_run(store, run_prefix(spec.stage, fingerprint))
    if run is None:
        raise MissingError(
            f"run {fingerprint[:10]} of {spec.stage} is not finished", fix=f"rcg run {spec.stage} at its code"
        )
    changes = _accepted_differences(store, spec, fingerprint)
    present = load_run(store, spec.prefix)
    if present is None:
        now_ms = time.time_ns() // 10**6
        adoption = Adoption(
            schema_version=SCHEMA, source=fingerprint, reason=reason, differences=changes, time_ms=now_ms
        )
        present = _commit_as(store, spec, run, adoption, heartbeat_s)
    if present.digest != run.digest:
        what = f"{spec.stage} has outputs of its own already, other than those of {fingerprint[:10]}"
        raise ArtifactError(what, got=present.digest, expected=run.digest)
    return present


def _accepted_differences(store: Store, spec: Spec, fingerprint: str) -> list[str]:
    before = read_spec(store, spec.stage, fingerprint)
    if before is None:
        raise MissingError(f"run {fingerprint[:10]} of {spec.stage} has no spec.json to compare with")
    found = differences(before.identity, spec.identity)
    others = [d for d in found if d.kind == "inputs"]
    if others:
        raise ArtifactError(
            f"run {fingerprint[:10]} of {spec.stage} was made from other inputs",
            got=", ".join(map(_describe, others)),
            fix=f"adopt its parents first if they are equivalent, or rcg run {spec.stage}",
        )
    return [_describe(d) for d in found]


def _describe(difference: Difference) -> str:
    return f"{difference.kind} {difference.name}: {difference.old} -> {difference.new}"


def _commit_as(store: Store, spec: Spec, run: CommittedRun, adoption: Adoption, heartbeat_s: float) -> CommittedRun:
    claim = acquire(Prefix(store, spec.prefix), interval_s=heartbeat_s, watch=Watch())
    if isinstance(claim, LeaseRecord):
        raise ConflictError(f"{spec.stage} is being run now by {claim.holder}", fix="end that first, or wait for it")
    with claim as lease:
        fenced = FencedStore(store, lease.check)
        fenced.put(f"{spec.prefix}/spec.json", spec.to_json())
        fenced.put(f"{spec.prefix}/adopted.json", adoption.to_json())

        def record(digest: str) -> RunRecord:
            changes = {"fingerprint": spec.fingerprint, "digest": digest, "attempt": lease.attempt}
            changes |= {"adopted_from": adoption.source, "adopted_because": adoption.reason}
            return run.record.model_copy(update=changes)

        return commit(fenced, spec.prefix, run.manifest.files, record)


def data_copy(source: Store, target: Store, prefixes: Iterable[str]) -> list[str]:
    """Copy committed runs, with the memoised files that they name; returns the prefixes whose manifest was new.

    Objects that are there with the right bytes stay. Files go first and each manifest last, so a copy that is cut off
    leaves no artifact, and the same call goes on. Raises: MissingError, TamperedError for a damaged source.
    """
    with tempfile.TemporaryDirectory(prefix="rcg-copy-") as folder:
        return [prefix for prefix in prefixes if _copy_run(source, target, prefix, Path(folder) / "object")]


def _copy_run(source: Store, target: Store, prefix: str, scratch: Path) -> bool:
    run = load_run(source, prefix)
    if run is None:
        raise MissingError("no such artifact in the store to copy from", got=f"{prefix} in {source.uri}")
    for name, entry in run.manifest.files.items():
        _copy_file(source, target, run, name, entry, scratch)
    here, there = Prefix(source, prefix), Prefix(target, prefix)
    small = [*_SMALL, *(f"attempts/{run.record.attempt}.{end}" for end in ("json", "run.json"))]
    events = [info.key for info in here.list("events")]
    listings = [info.key for info in here.list(listing_name("").partition("/")[0])]
    for name in (*small, *events, *listings):
        if here.head(name) is not None:
            there.put(name, here.get(name))
    data = here.get(MANIFEST)
    try:
        there.put(MANIFEST, data, if_absent=True)
    except ConflictError:
        if there.get(MANIFEST) != data:
            raise ArtifactError("the target holds other outputs of this run", got=f"{prefix} in {target.uri}") from None
        return False
    return True


def _copy_file(source: Store, target: Store, run: CommittedRun, name: str, entry: FileEntry, scratch: Path) -> None:
    key = run.keys[name]
    if not _is_intact(target, key, entry, scratch):
        source.download(key, scratch)
        found = file_entry(scratch)
        if found != entry:
            raise tampered(run.prefix, name, found.sha256, entry)
        target.upload(key, scratch)
    if key.startswith("memo/"):
        _copy_memo(source, target, key)


def _is_intact(store: Store, key: str, entry: FileEntry, scratch: Path) -> bool:
    info = store.head(key)
    if info is None or info.size != entry.size:
        return False
    path = store.local_path(key)
    if path is None:
        store.download(key, scratch)
        path = scratch
    return file_entry(path) == entry


def _copy_memo(source: Store, target: Store, key: str) -> None:
    """The entry by which later runs find the memoised file, unless the target has one of its own."""
    entry = f"{key.rpartition('/')[0]}/entry.json"
    if source.head(entry) is not None and target.head(entry) is None:
        data = source.get(entry)
        if Memo.parse(data, entry).data == key:
            try:
                target.put(entry, data, if_absent=True)
            except ConflictError:
                return


def pull(store: Store, run: CommittedRun, folder: Path) -> list[Path]:
    """Fetch every file of a run into folder, checked; returns the paths. Those that are there already stay."""
    names = list(run.manifest.files)
    missing = [n for n in names if not (folder / n).is_file() or file_entry(folder / n) != run.manifest.files[n]]
    fill(store, run, missing, folder)
    return [folder / name for name in names]
