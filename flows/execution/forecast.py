"""What a stage's run would cost and what it could use again, estimated from the records of earlier runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.cache.memo_keys import facts_key, shard_key
from components.documents import parse_json
from components.errors import ArtifactError
from components.store.base import Prefix, Store
from flows.identity.fingerprint import Difference, differences
from flows.runs.lookup import read_spec
from flows.runs.records import MANIFEST, CommittedRun, Spec, load_run, read_json_file, run_prefix

_MOST_SPECS = 200


@dataclass(frozen=True)
class Earlier:
    """An earlier run of the stage, and what would be different now."""

    fingerprint: str
    spec: Spec
    run: CommittedRun | None
    """None: it was never finished."""
    differences: list[Difference]


@dataclass(frozen=True)
class Cost:
    """What one run takes, by the measure of an earlier one."""

    seconds: float
    """On as many workers of the same kind as the earlier run had."""
    workers: int
    device: str
    n_bytes: int
    like: str
    """Fingerprint of the earlier run."""
    scaled: float
    """Work of the new run over that of the earlier one."""

    @property
    def worker_hours(self) -> float:
        return self.seconds * self.workers / 3600


def earlier_runs(store: Store, spec: Spec) -> list[Earlier]:
    """Other runs of the stage in the store: finished ones first, then by how few differences they have."""
    found = []
    for fingerprint, finished in _fingerprints(store, spec.stage):
        other = read_spec(store, spec.stage, fingerprint) if fingerprint != spec.fingerprint else None
        if other is not None:
            run = _intact(store, spec.stage, fingerprint) if finished else None
            found.append(Earlier(fingerprint, other, run, differences(other.identity, spec.identity)))
    return sorted(found, key=lambda e: (e.run is None, len(e.differences), e.fingerprint))


def _fingerprints(store: Store, stage: str) -> Iterator[tuple[str, bool]]:
    """(fingerprint, whether it was committed) of the runs in the store."""
    committed: dict[str, bool] = {}
    for info in store.list(f"runs/{stage}"):
        _, _, fingerprint, name = info.key.split("/", 3)
        committed[fingerprint] = committed.get(fingerprint, False) or name == MANIFEST
    yield from sorted(committed.items(), key=lambda item: not item[1])[:_MOST_SPECS]


def _intact(store: Store, stage: str, fingerprint: str) -> CommittedRun | None:
    try:
        return load_run(store, run_prefix(stage, fingerprint))
    except ArtifactError:
        return None


def cost_of(params: Mapping[str, Any], earlier: list[Earlier], *, share: float = 1.0) -> Cost | None:
    """Scaled from the most similar run whose time is known; `share` is the part of the work that is still to do."""
    for other in earlier:
        run = other.run
        if run is None or run.record.attempt != 1 or run.record.ended_ms <= run.record.started_ms:
            continue  # of a resumed run only the last attempt was timed; a clock that went back timed nothing
        scaled = work(params) / work(other.spec.identity.params) * share
        seconds = (run.record.ended_ms - run.record.started_ms) / 1000 * scaled
        n_bytes = sum(entry.size for entry in run.manifest.files.values())
        return Cost(seconds, run.record.world_size, run.record.device, n_bytes, run.fingerprint, scaled)
    return None


def work(params: Mapping[str, Any]) -> float:
    """The amount of work that params ask for, in units that cancel between two runs of one stage."""
    train = params.get("train")
    if isinstance(train, Mapping):
        return max(1.0, float(train.get("steps", 1)) * float(train.get("batch_size", 1)))
    return max(1.0, float(params.get("n", 1)))


def checkpoint_step(store: Store, prefix: str) -> int | None:
    """Step of a run's newest checkpoint; None without one."""
    run = Prefix(store, prefix)
    if run.head("checkpoints/latest.json") is None:
        return None
    try:
        kept = parse_json(run.get("checkpoints/latest.json"), "latest.json")["kept"]
        return int(kept[0]["step"])
    except (ArtifactError, LookupError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Memos:
    """Memoised parts of a stage: how many there are, and pictures in those that are missing."""

    present: int
    total: int
    pictures_missing: int
    pictures: int

    @property
    def share(self) -> float:
        """The part of the work that is still to do, by pictures."""
        return self.pictures_missing / self.pictures if self.pictures else 1.0


def memos_of(store: Store, spec: Spec) -> Memos | None:
    """Which chunks of collect or encode were ever made; None for stages without memoised parts."""
    keys = {"collect": _collect_keys, "encode": _encode_keys}.get(spec.stage)
    if keys is None:
        return None
    from flows.runs.stored import memo_folder

    chunks = list(keys(store, spec))
    present = [store.head(f"{memo_folder(spec.stage, key)}/entry.json") is not None for _, key in chunks]
    missing = sum(count for (count, _), there in zip(chunks, present, strict=True) if not there)
    return Memos(sum(present), len(chunks), missing, sum(count for count, _ in chunks))


def _collect_keys(store: Store, spec: Spec) -> Iterator[tuple[int, str]]:  # noqa: ARG001  (one signature for both)
    """(pictures, key) of each chunk."""
    for line in (spec.collection_lock or "").splitlines():
        if line.startswith("chunk "):
            _, _, count, digest = line.split()
            yield int(count), facts_key(spec.identity.params, digest)


def _encode_keys(store: Store, spec: Spec) -> Iterator[tuple[int, str]]:
    collect = load_run(store, spec.inputs["collect"].prefix)
    if collect is None:
        return
    listing = read_json_file(store, collect, "collection.json")
    for chunk in listing["chunks"]:
        key = shard_key(
            spec.identity.params,
            pictures=chunk["sha256"],
            decode=listing["decode"],
            **{stage: spec.inputs[stage].digest for stage in ("encoder", "codec", "text") if stage in spec.inputs},
        )
        yield chunk["count"], key
