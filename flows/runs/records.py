"""Runs in the store: spec, records, commit, and loading what was committed, checked.

runs/<stage>/<fingerprint>/
    spec.json                   all that a worker needs
    lease.json attempts/<n>.json
    attempts/<n>.failure.json   why attempt n ended
    attempts/<n>.run.json       what attempt n is about to commit
    jobs/<name>.json            a RayJob that worked on it; <name>.failure.json: why its command failed
    erased.json                 what of its files was erased, if anything
    adopted.json                whose work was accepted for this run, if any
    checkpoints/… events/<n>/<seq>.jsonl out/<n>/…
    manifest.json               the commit
    run.json                    the record of the attempt whose manifest it is
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from components.documents import parse_json
from components.errors import (
    ArtifactError,
    ConfigError,
    ConflictError,
    FailureClass,
    MissingError,
    RcgError,
    RetryableError,
    TamperedError,
)
from components.store.base import Prefix, Store, check_key
from flows.identity.artifact import (
    SCHEMA,
    SHA256,
    FileEntry,
    Manifest,
    Millis,
    Record,
    RunPrefix,
    SealedRecord,
    Sha256,
    digest_of,
    listing_name,
    pack_manifest,
    unpack_manifest,
)
from flows.identity.fingerprint import Identity
from flows.runs.lease import attempts

MANIFEST = "manifest.json"
ERASED = "erased.json"
MEMO = "memo/"
"""Where keys of memoised files begin: several runs may share them, and any of their stage can make them again."""
_CHUNK = 8 << 20
_QUESTIONS_AT_ONCE = 16
_R = TypeVar("_R", bound=Record)


class InputSpec(Record):
    """A parent's committed run, as a worker finds it."""

    prefix: RunPrefix
    digest: Sha256


class Spec(Record):
    """spec.json: all that a worker needs to do the work, wherever it is."""

    schema_version: int
    fingerprint: Sha256
    identity: Identity
    inputs: dict[str, InputSpec]
    """Parent stage -> its run."""
    source: str
    """Where the images are; a place, not identity."""
    collection_lock: str | None
    """Text of collection.lock; None but for collect."""
    module: str
    """Module whose run() does the work."""

    @property
    def stage(self) -> str:
        return self.identity.stage

    @property
    def prefix(self) -> str:
        return run_prefix(self.stage, self.fingerprint)


class RunRecord(SealedRecord):
    """run.json: how a committed artifact came about. Never hashed into anything."""

    schema_version: int
    stage: str
    fingerprint: Sha256
    digest: Sha256
    """Content digest of the manifest that this record belongs to."""
    attempt: int
    keys: dict[str, str]
    """Logical path -> key in the store."""
    world_size: int
    device: str
    versions: dict[str, str]
    """Python and the libraries that move bits."""
    host: str
    context: dict[str, str]
    """git commit, image, RayJob: whatever the caller knows."""
    started_ms: Millis
    ended_ms: Millis
    adopted_from: Sha256 | None
    """Fingerprint whose outputs were accepted for this one."""
    adopted_because: str | None


class Failure(Record):
    """attempts/<n>.failure.json."""

    schema_version: int
    failure_class: FailureClass
    message: str

    def error(self, what: str) -> RcgError:
        """The error to raise for a failure of another process."""
        kinds: dict[FailureClass, type[RcgError]] = {
            "config": ConfigError,
            "data": ArtifactError,
            "transient": RetryableError,
        }
        return kinds.get(self.failure_class, RcgError)(f"{what}: {self.message}")


class Adoption(Record):
    """adopted.json: whose outputs or checkpoints were accepted, why, and what was different."""

    schema_version: int
    source: Sha256
    reason: str
    differences: list[str]
    time_ms: Millis


class Erasure(Record):
    """erased.json: files of a run that were erased because they showed a picture that is to be forgotten."""

    schema_version: int
    files: list[str]


@dataclass(frozen=True)
class CommittedRun:
    """An artifact whose manifest is intact and whose files are all there with the right sizes, but for erased ones."""

    prefix: str
    manifest: Manifest
    digest: str
    record: RunRecord
    erased: frozenset[str] = frozenset()

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def fingerprint(self) -> str:
        return self.prefix.rpartition("/")[2]

    @property
    def keys(self) -> Mapping[str, str]:
        return self.record.keys


def run_prefix(stage: str, fingerprint: str) -> str:
    return f"runs/{stage}/{fingerprint}"


def read_record(kind: type[_R], run: Store, name: str) -> _R | None:
    """A record below a run's prefix; None when it is absent."""
    try:
        data = run.get(name)
    except MissingError:
        return None
    return kind.parse(data, f"{run.uri}/{name}")


def load_run(store: Store, prefix: str, *, verify: bool = False, memos: bool = True) -> CommittedRun | None:
    """The committed run at prefix; None if nothing is committed there. With `verify` every sha256 is checked too.

    Without `memos` memoised files are not looked at. Raises: TamperedError or MissingError naming the first file that
    is not as committed; ArtifactError for a manifest that cannot be one.
    """
    run = Prefix(store, prefix)
    try:
        data = run.get(MANIFEST)
    except MissingError:
        return None
    where = f"{run.uri}/{MANIFEST}"
    digest = digest_of(data)
    record = _find_record(run, prefix, digest)
    manifest = unpack_manifest(data, prefix.split("/")[1], where, run.get)
    if manifest.files.keys() != record.keys.keys():
        raise TamperedError(f"{run.uri}/run.json does not name the files of its manifest", fix=_mend(prefix))
    _check_owners(prefix, manifest, record)
    committed = CommittedRun(prefix, manifest, digest, record)
    committed = replace(committed, erased=_check_sizes(store, committed, memos=memos))
    if verify:
        for name in manifest.files.keys() - committed.erased:
            check_file(store, committed, name)
    return committed


def reusable_run(store: Store, prefix: str) -> CommittedRun | None:
    """As load_run; None also where no more than memoised files are lost or torn: doing the work again mends them."""
    try:
        return load_run(store, prefix)
    except (MissingError, TamperedError):
        load_run(store, prefix, memos=False)
        return None


def _check_owners(prefix: str, manifest: Manifest, record: RunRecord) -> None:
    """A file lies in the folder of its own run, of one that this run adopted, or is memoised under its own digest.

    Raises: TamperedError: whoever copies, mends or erases files follows these keys.
    """
    home = f"runs/{manifest.stage}/{SHA256}" if record.adopted_from is not None else re.escape(prefix)
    own, memo = re.compile(f"{home}/out/[0-9]+"), re.compile(f"{MEMO}{manifest.stage}/{SHA256}")
    for name, entry in manifest.files.items():
        key = check_key(record.keys[check_key(name)])
        folder, is_own = key.removesuffix(f"/{name}"), key.endswith(f"/{name}")
        is_memo = key.endswith(f"/{entry.sha256}") and memo.fullmatch(key.removesuffix(f"/{entry.sha256}"))
        if not is_memo and not (is_own and own.fullmatch(folder)):
            what, place = f"run.json of {prefix} names a key for {name} that is not its own", f"{prefix}/out/…/{name}"
            raise TamperedError(what, got=key, expected=f"{place}, or a memoised file", fix=_mend(prefix))


def _find_record(run: Store, prefix: str, digest: str) -> RunRecord:
    """run.json if it belongs to the manifest, else the attempt's record that does: a driver may have died between.

    Raises: TamperedError, naming the records that are damaged.
    """
    damaged = []
    for name in ("run.json", *(f"attempts/{n}.run.json" for n in reversed(attempts(run)))):
        try:
            record = read_record(RunRecord, run, name)
        except ArtifactError:
            damaged.append(name)
            continue
        if record is not None and record.digest == digest:
            return record
    if damaged:
        what = f"{run.uri} has no whole run.json of what was committed; damaged: {', '.join(damaged)}"
    else:
        what = f"{run.uri}/{MANIFEST} is not the one that was committed: no attempt's record names it"
    raise TamperedError(what, got=digest, fix=_mend(prefix))


def _check_sizes(store: Store, run: CommittedRun, *, memos: bool) -> frozenset[str]:
    """Names of the files that were erased. Raises: MissingError, TamperedError for others."""
    entries = {n: entry for n, entry in run.manifest.files.items() if memos or not run.keys[n].startswith(MEMO)}
    sizes = dict(_sizes(store, [run.keys[name] for name in entries]))
    missing = [name for name in entries if run.keys[name] not in sizes]
    erasure = read_record(Erasure, Prefix(store, run.prefix), ERASED) if missing else None
    erased = frozenset(missing).intersection(erasure.files if erasure is not None else ())
    for name, entry in entries.items():
        key = run.keys[name]
        size = sizes.get(key)
        if size is None and name not in erased:
            raise MissingError(f"{name} of {run.prefix} is gone", expected=key, fix=_mend(run.prefix, key))
        if size is not None and size != entry.size:
            what = f"{name} of {run.prefix} has the wrong size"
            raise TamperedError(what, got=size, expected=entry.size, fix=_mend(run.prefix, key))
    return erased


def _sizes(store: Store, keys: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Sizes of those keys that exist: one listing per run's folder, one question for any other key, many at once."""
    folders, others = set(), []
    for key in keys:
        if key.startswith("runs/"):
            folders.add("/".join(key.split("/")[:5]))  # runs/<stage>/<fingerprint>/out/<n>
        else:
            others.append(key)
    with ThreadPoolExecutor(_QUESTIONS_AT_ONCE) as pool:
        yield from ((info.key, info.size) for info in pool.map(store.head, others) if info is not None)
    for folder in folders:
        yield from ((info.key, info.size) for info in store.list(folder))


def check_file(store: Store, run: CommittedRun, name: str) -> None:
    """Raises: TamperedError if the bytes in the store are not those that were committed."""
    found = sha256_in_store(store, run.keys[name])
    if found != run.manifest.files[name].sha256:
        raise tampered(run, name, found)


def read_file(store: Store, run: CommittedRun, name: str) -> bytes:
    """A small file of a run, whole. Raises: MissingError, TamperedError for other bytes than were committed."""
    if name not in run.keys:
        raise MissingError(f"the {run.stage} artifact has no file {name}", got=", ".join(sorted(run.keys)[:10]))
    data = store.get(run.keys[name])
    found = digest_of(data)
    if found != run.manifest.files[name].sha256:
        raise tampered(run, name, found)
    return data


def read_json_file(store: Store, run: CommittedRun, name: str) -> Any:
    """The same of a JSON file."""
    return parse_json(read_file(store, run, name), f"{name} of {run.stage}")


def tampered(run: CommittedRun, name: str, found: str) -> TamperedError:
    what = f"{name} of {run.prefix} does not match its digest: torn or altered"
    fix = _mend(run.prefix, run.keys[name])
    return TamperedError(what, got=found, expected=run.manifest.files[name].sha256, fix=fix)


def _mend(prefix: str, key: str = "") -> str:
    if key.startswith(MEMO):
        return f"delete {key} from the store, then `rcg run {prefix.split('/')[1]}` makes it again"
    return (
        f"`rcg data copy --from` a store that has it intact, or move {prefix} out of the store and run the stage again"
    )


def sha256_in_store(store: Store, key: str) -> str:
    """Digest of an object, read in pieces."""
    sha256, start = hashlib.sha256(), 0
    while piece := store.get(key, start=start, stop=start + _CHUNK):
        sha256.update(piece)
        start += len(piece)
    return sha256.hexdigest()


def commit(
    store: Store, prefix: str, files: Mapping[str, FileEntry], record: Callable[[str], RunRecord]
) -> CommittedRun:
    """Make the files of one attempt the artifact, or return what another attempt committed first.

    `record(digest)` is written before the manifest, under the attempt's own name: whichever attempt's manifest wins,
    its record can be found, also when this process ends between any two of the writes.
    """
    run = Prefix(store, prefix)
    stage = prefix.split("/")[1]
    data, listing = pack_manifest(Manifest(schema_version=SCHEMA, stage=stage, files=dict(files)))
    mine = record(digest_of(data))
    if listing is not None:
        run.put(listing_name(digest_of(listing)), listing)
    run.put(f"attempts/{mine.attempt}.run.json", mine.to_json())
    with contextlib.suppress(ConflictError):  # another attempt was first, or our write's answer got lost
        run.put(MANIFEST, data, if_absent=True)
    committed = load_run(store, prefix)
    if committed is None:
        raise MissingError(f"{run.uri}/{MANIFEST} vanished after its commit")
    restore_record(store, committed)
    return committed


def restore_record(store: Store, run: CommittedRun) -> None:
    """Write run.json where it lacks, is damaged or of a loser: whoever committed may have died before doing so."""
    folder = Prefix(store, run.prefix)
    present = None
    with contextlib.suppress(ArtifactError):
        present = read_record(RunRecord, folder, "run.json")
    if present != run.record:
        folder.put("run.json", run.record.to_json())


def find_run(store: Store, stage: str, digest: str) -> CommittedRun | None:
    """Any run of the stage with this content; equal content serves equally."""
    for info in store.list(f"runs/{stage}"):
        prefix, _, name = info.key.rpartition("/")
        if name == MANIFEST and prefix.count("/") == 2 and sha256_in_store(store, info.key) == digest:
            return load_run(store, prefix)
    return None


def full_fingerprint(store: Store, stage: str, start: str) -> str:
    """The one fingerprint of the stage in the store that starts so.

    Raises: MissingError for none, ArtifactError for several.
    """
    found = sorted({info.key.split("/")[2] for info in store.list(f"runs/{stage}")})
    matching = [fingerprint for fingerprint in found if fingerprint.startswith(start)]
    if not matching:
        raise MissingError(f"no run of {stage} starts with {start}", got=", ".join(f[:10] for f in found) or "no runs")
    if len(matching) > 1:
        raise ArtifactError(f"several runs of {stage} start with {start}", got=", ".join(matching))
    return matching[0]
