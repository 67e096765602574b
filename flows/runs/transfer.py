"""Moving committed runs: accept one under another fingerprint, copy to another store, fetch into a folder."""

import contextlib
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from components.errors import ArtifactError, ConflictError, MissingError, TamperedError
from components.files import write_whole
from components.store.base import Prefix, Store
from flows.identity.artifact import SCHEMA, FileEntry, digest_of, file_entry, pack_manifest
from flows.identity.fingerprint import Difference, differences
from flows.runs.ancestry import CONTEXT, bundle_folder
from flows.runs.lease import FencedStore, Lease, LeaseRecord, Watch, acquire
from flows.runs.lookup import read_spec
from flows.runs.records import (
    MANIFEST,
    MEMO,
    Adoption,
    CommittedRun,
    RunRecord,
    Spec,
    commit,
    full_fingerprint,
    load_run,
    run_prefix,
    tampered,
)
from flows.runs.stored import Memo, memo_folder
from flows.runs.workspace import fill

_SMALL = ("spec.json", "adopted.json")


def adopt(store: Store, spec: Spec, source: str, reason: str, *, heartbeat_s: float = 10.0) -> CommittedRun:
    """Commit the outputs of run `source` (a fingerprint or its start) as those of `spec`; no byte is copied.

    Raises: ArtifactError when the inputs differ (other data are no refactoring) or spec has other outputs already;
    MissingError for an unknown or unfinished source.
    """
    adoption = _adoption(store, spec, source, reason)
    run = load_run(store, run_prefix(spec.stage, adoption.source))
    if run is None:
        fix = "resume it under the new code (adopt_checkpoints), or finish it with its own"
        raise MissingError(f"run {adoption.source[:10]} of {spec.stage} is not finished", fix=fix)
    present = load_run(store, spec.prefix)
    if present is None:
        present = _commit_as(store, spec, run, adoption, heartbeat_s)
    if present.digest != run.digest:
        what = f"{spec.stage} has outputs of its own already, other than those of {adoption.source[:10]}"
        raise ArtifactError(what, got=present.digest, expected=run.digest)
    return present


def adopt_checkpoints(store: Store, spec: Spec, source: str, reason: str, *, heartbeat_s: float = 10.0) -> int:
    """Let the next run of `spec` continue from the newest checkpoint of the unfinished run `source`; returns its step.

    Raises: as adopt; ArtifactError when spec has checkpoints already, or the source has none that can be read.
    """
    from components.training.checkpoint import Latest, Saved, SavedFile, fetch

    adoption = _adoption(store, spec, source, reason)
    old, pointer = run_prefix(spec.stage, adoption.source), "checkpoints/latest.json"
    try:
        saved = Latest.model_validate_json(store.get(f"{old}/{pointer}")).kept[0]
    except (ValueError, IndexError) as error:
        what = f"run {adoption.source[:10]} of {spec.stage} has no checkpoint that can be read"
        raise ArtifactError(what, fix=f"rcg run {spec.stage}, which starts from the beginning") from error
    with _claim(store, spec.prefix, heartbeat_s) as lease, tempfile.TemporaryDirectory(prefix="rcg-adopt-") as folder:
        fenced = FencedStore(store, lease.check)
        if store.head(f"{spec.prefix}/{pointer}") is not None:
            raise ArtifactError(f"{spec.stage} has checkpoints of its own already", fix=f"rcg run {spec.stage}")
        files = []
        for file, path in zip(saved.files, fetch(store, saved, Path(folder)), strict=True):
            key = f"{spec.prefix}/checkpoints/0/step-{saved.step:08d}/{file.name}"  # 0: older than any attempt
            fenced.upload(key, path)
            files.append(SavedFile(key=key, sha256=file.sha256))
        _note(fenced, spec, adoption)
        kept = Saved(step=saved.step, attempt=0, files=tuple(files))
        fenced.put(f"{spec.prefix}/{pointer}", Latest(kept=(kept,)).model_dump_json().encode(), if_absent=True)
    return saved.step


def _adoption(store: Store, spec: Spec, source: str, reason: str) -> Adoption:
    if not reason.strip():
        fix = "--reason 'what makes the old result right for the new code'"
        raise ArtifactError("adopting needs a reason", fix=fix)
    fingerprint = full_fingerprint(store, spec.stage, source)
    changes = _accepted_differences(store, spec, fingerprint)
    now_ms = time.time_ns() // 10**6
    return Adoption(schema_version=SCHEMA, source=fingerprint, reason=reason, differences=changes, time_ms=now_ms)


def _note(store: Store, spec: Spec, adoption: Adoption) -> None:
    store.put(f"{spec.prefix}/spec.json", spec.to_json())
    store.put(f"{spec.prefix}/adopted.json", adoption.to_json())


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
    with _claim(store, spec.prefix, heartbeat_s) as lease:
        fenced = FencedStore(store, lease.check)
        _note(fenced, spec, adoption)

        def record(digest: str) -> RunRecord:
            changes = {"fingerprint": spec.fingerprint, "digest": digest, "attempt": lease.attempt}
            changes |= {"adopted_from": adoption.source, "adopted_because": adoption.reason}
            return run.record.model_copy(update=changes)

        return commit(fenced, spec.prefix, run.manifest.files, record)


def _claim(store: Store, prefix: str, heartbeat_s: float) -> Lease:
    claim = acquire(Prefix(store, prefix), interval_s=heartbeat_s, watch=Watch())
    if isinstance(claim, LeaseRecord):
        raise ConflictError(f"{prefix} is being run now by {claim.holder}", fix="end that first, or wait for it")
    return claim


def data_copy(source: Store, target: Store, wanted: Mapping[str, str], *, heartbeat_s: float = 10.0) -> list[str]:
    """Copy committed runs (prefix -> content digest); returns the prefixes whose manifest was new.

    Memoised files come along. A run that is whole in the target stays as it is, down to its record; one that is damaged
    is mended. Files go first and each manifest last, so a copy that is cut off leaves no artifact, and the same call
    goes on. Of the source nothing is believed but bytes that match the digest.
    Raises: MissingError, TamperedError for a source that is damaged or holds something else; ArtifactError where the
    target has other outputs, ConflictError where it is just making some.
    """
    with tempfile.TemporaryDirectory(prefix="rcg-copy-") as folder:
        scratch = Path(folder) / "object"
        return [p for p, digest in wanted.items() if _copy_run(source, target, p, digest, scratch, heartbeat_s)]


def _copy_run(source: Store, target: Store, prefix: str, digest: str, scratch: Path, heartbeat_s: float) -> bool:
    there = Prefix(target, prefix)
    if there.head(MANIFEST) is not None:
        _check_same(there, digest)
        if not _is_whole(target, prefix):
            _copy_objects(source, target, _found(source, prefix, digest), scratch)
        return False
    run = _found(source, prefix, digest)
    with _claim(target, prefix, heartbeat_s) as lease:  # keys are numbered by attempt: a live one may use the same
        fenced = FencedStore(target, lease.check)
        _copy_objects(source, fenced, run, scratch)
        with contextlib.suppress(ConflictError):
            Prefix(fenced, prefix).put(MANIFEST, pack_manifest(run.manifest)[0], if_absent=True)
    _check_same(there, digest)
    return True


def _is_whole(store: Store, prefix: str) -> bool:
    try:
        return load_run(store, prefix, verify=True) is not None
    except ArtifactError:
        return False


def _found(source: Store, prefix: str, digest: str) -> CommittedRun:
    run = load_run(source, prefix)
    if run is None:
        raise MissingError("no such artifact in the store to copy from", got=f"{prefix} in {source.uri}")
    if run.digest != digest:
        what = f"the store to copy from holds other outputs of {prefix} than this checkout's manifest names"
        raise TamperedError(what, got=run.digest, expected=digest)
    return run


def _check_same(there: Prefix, wanted: str) -> None:
    digest = digest_of(there.get(MANIFEST))
    if digest != wanted:
        what = "the target holds other outputs of this run"
        raise ArtifactError(what, got=f"{digest} in {there.uri}", expected=wanted)


def _copy_objects(source: Store, target: Store, run: CommittedRun, scratch: Path) -> None:
    spec = read_spec(source, run.stage, run.fingerprint)
    if spec is not None and spec.identity.fingerprint != run.fingerprint:
        raise TamperedError(f"spec.json of {run.prefix} is that of another run", got=spec.identity.fingerprint)
    for name, entry in run.manifest.files.items():
        _copy_file(source, target, run, name, entry, scratch)
    here, there = Prefix(source, run.prefix), Prefix(target, run.prefix)
    names = [*_SMALL, f"attempts/{run.record.attempt}.json"]
    names += [info.key for folder in ("events", "listing") for info in here.list(folder)]
    if (bundle := bundle_folder(run)) is not None:
        names += [f"{bundle.removeprefix(f'{run.prefix}/')}/{name}" for name in (CONTEXT, MANIFEST)]
    for name in names:
        if here.head(name) is not None:
            there.put(name, here.get(name))
    for name in (f"attempts/{run.record.attempt}.run.json", "run.json"):
        there.put(name, run.record.to_json())


def _copy_file(source: Store, target: Store, run: CommittedRun, name: str, entry: FileEntry, scratch: Path) -> None:
    key = run.keys[name]
    if not _is_intact(target, key, entry, scratch):
        if not key.startswith((f"{run.prefix}/", MEMO)) and target.head(key) is not None:
            what = f"{name} of {run.prefix}, which adopted it, would replace a file of another run"
            raise ArtifactError(what, got=key, fix=f"move {key} out of {target.uri} if that run is to go")
        source.download(key, scratch)
        found = file_entry(scratch)
        if found != entry:
            raise tampered(run, name, found.sha256)
        target.upload(key, scratch)
    if key.startswith(MEMO):
        _copy_memo(source, target, run.stage, key, entry)


def _is_intact(store: Store, key: str, entry: FileEntry, scratch: Path) -> bool:
    info = store.head(key)
    if info is None or info.size != entry.size:
        return False
    path = store.local_path(key)
    if path is None:
        store.download(key, scratch)
        path = scratch
    return file_entry(path) == entry


def _copy_memo(source: Store, target: Store, stage: str, key: str, file: FileEntry) -> None:
    """The entry by which later runs find the memoised file, unless the target has one of its own."""
    folder = key.rpartition("/")[0]
    entry = f"{folder}/entry.json"
    if source.head(entry) is not None and target.head(entry) is None:
        data = source.get(entry)
        with contextlib.suppress(ArtifactError, ConflictError):  # a damaged one is not worth copying
            memo = Memo.parse(data, entry)
            if (memo.data, memo.file, memo_folder(stage, memo.key)) == (key, file, folder):
                target.put(entry, data, if_absent=True)


def pull(store: Store, run: CommittedRun, folder: Path) -> list[Path]:
    """Fetch every file of a run into folder, checked, and its manifest; returns their paths.

    Those that are there already stay.
    """
    names = list(run.manifest.files)
    missing = [n for n in names if not (folder / n).is_file() or file_entry(folder / n) != run.manifest.files[n]]
    fill(store, run, missing, folder)
    write_whole(folder / MANIFEST, pack_manifest(run.manifest)[0])
    return [folder / name for name in names]
