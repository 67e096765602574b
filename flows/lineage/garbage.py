"""Runs that no branch, tag, registered version or checkout uses, and files that no kept run needs: found, and deleted.

A run belongs to a branch or tag when its params and inputs are those of that commit, whatever code made it; the store
alone decides that, without a DVC cache. Runs that are under way, or ended a short while ago, stay; of those that go,
lease.json stays, with the last fencing number.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.errors import ConfigError, ConflictError, RcgError
from components.store.base import Prefix, Store
from flows.children import git
from flows.execution.project import Project
from flows.gate.champion import open_aliases
from flows.identity.artifact import digest_of
from flows.identity.fingerprint import LOCK
from flows.pipeline.table import KINDS
from flows.runs.lease import LEASE, FencedStore, Lease, Watch, acquire, holder_of, read_lease
from flows.runs.lookup import read_spec
from flows.runs.rayjobs import noted_jobs
from flows.runs.records import MANIFEST, CommittedRun, Spec, load_run
from flows.yaml_files import parse_yaml

_DAY_S = 86400
_HEARTBEAT_S = 10.0
_POLL_S = 0.2
_LONGEST_INTERVAL_S = 60.0
"""A holder that beats less often is not waited for: its run stays."""
_log = logging.getLogger(__name__)


@dataclass
class _Run:
    """One prefix of the store."""

    prefix: str
    spec: Spec | None
    run: CommittedRun | None
    damaged: bool
    """It cannot be read: left alone."""


@dataclass
class Garbage:
    """What is deleted, or would be."""

    runs: dict[str, Watch] = field(default_factory=dict)
    """Prefixes of whole runs, children first, each with what was seen of its holder."""
    keys: list[str] = field(default_factory=list)
    """All objects; those of `runs` are looked up again when they are deleted."""
    needed: set[str] = field(default_factory=set)
    """Keys that runs which stay share with others."""
    sizes: Counter[str] = field(default_factory=Counter)
    """Bytes by kind."""
    n_kept: int = 0

    @property
    def n_runs(self) -> int:
        return len(self.runs)

    def add(self, kind: str, key: str, size: int) -> None:
        self.keys.append(key)
        self.sizes[kind] += size


def collect_garbage(project: Project, *, days: float, delete: bool) -> Garbage:
    """Find it, and with `delete` delete it. The caller holds the lock that keeps retraining out.

    Runs that ended or showed life less than `days` ago stay, and all whose holder lives. Raises: RetryableError if the
    registry does not answer, or a run comes to life meanwhile.
    """
    found = _find(project, time.time() - days * _DAY_S)
    if delete:
        for prefix, watch in found.runs.items():
            _delete_run(project.store, prefix, watch, found.needed)
        for key in found.keys:
            if _prefix_of(key) not in found.runs:
                project.store.delete(key)
    return found


def _prefix_of(key: str) -> str:
    return "/".join(key.split("/")[:3])


def _delete_run(store: Store, prefix: str, watch: Watch, needed: set[str]) -> None:
    """Delete a run under its lease, the manifest first, so that a kill leaves no torn run.

    The lease stays: a writer that was lost from sight may still live, and later holders need numbers above its own.
    """
    claim = acquire(Prefix(store, prefix), interval_s=_HEARTBEAT_S, watch=watch)
    if not isinstance(claim, Lease):
        what = f"{prefix} came to life: it stays, and so does all that it is made from"
        raise ConflictError(what, got=claim.holder, fix="run the same command again")
    with claim:
        fenced = FencedStore(store, claim.check)
        for key in _keys_of_run([info.key for info in store.list(prefix)], needed):
            fenced.delete(key)


def _keys_of_run(keys: list[str], needed: set[str]) -> list[str]:
    """What goes with a run, in order."""
    going = (key for key in keys if key not in needed and not key.endswith(f"/{LEASE}"))
    return sorted(going, key=lambda key: not key.endswith(f"/{MANIFEST}"))


def _find(project: Project, before: float) -> Garbage:
    store = project.store
    runs = {run.prefix: run for stage in KINDS for run in _all(store, stage)}
    kept = _closure(runs, {*_of_checkout(project), *_of_refs(project, runs), *_of_versions(project, runs)})
    kept |= _closure(runs, {prefix for prefix, run in runs.items() if _is_recent(store, run, before)})
    watches = {prefix: Watch() for prefix in reversed(runs) if prefix not in kept}
    kept |= _closure(runs, _living(store, {p: watch for p, watch in watches.items() if runs[p].run is None}))
    needed = {key for prefix in kept if (run := runs[prefix].run) is not None for key in run.keys.values()}
    going = {prefix: watch for prefix, watch in watches.items() if prefix not in kept}
    plan = Garbage(going, needed=needed, n_kept=len(kept))
    for prefix in sorted(runs):
        _plan_run(store, runs[prefix], prefix in kept, needed, plan)
    for stage in ("collect", "encode"):
        if not any(runs[prefix].run is None for prefix in kept if prefix.startswith(f"runs/{stage}/")):
            _plan_memos(store, stage, needed, plan)
    return plan


def _living(store: Store, watches: Mapping[str, Watch]) -> set[str]:
    """Those whose holder beats while this process looks, or may: a clock of another machine may be days off."""
    first: dict[str, int] = {}
    living, undecided = set(), dict(watches)
    while undecided:
        for prefix, watch in list(undecided.items()):
            lease = holder_of(Prefix(store, prefix))
            if lease is None or watch.is_dead(lease):
                del undecided[prefix]
            elif first.setdefault(prefix, lease.beat) != lease.beat or not lease.interval_s <= _LONGEST_INTERVAL_S:
                living.add(prefix)
                del undecided[prefix]
        time.sleep(_POLL_S if undecided else 0)
    return living


def _all(store: Store, stage: str) -> Iterator[_Run]:
    keys = (info.key for info in store.list(f"runs/{stage}"))
    for prefix in sorted({_prefix_of(key) for key in keys if not key.endswith(f"/{LEASE}")}):
        spec = None
        try:
            spec = read_spec(store, stage, prefix.rpartition("/")[2])
            yield _Run(prefix, spec, load_run(store, prefix), damaged=False)
        except RcgError as error:
            _log.warning("%s is left alone: %s", prefix, error.what)
            yield _Run(prefix, spec, None, damaged=True)


def _closure(runs: Mapping[str, _Run], roots: set[str]) -> set[str]:
    """The runs with all that they were made of; where several runs made a parent with the same bytes, all of them."""
    by_digest: dict[str, set[str]] = {}
    for prefix, run in runs.items():
        if run.run is not None:
            by_digest.setdefault(run.run.digest, set()).add(prefix)
    kept: set[str] = set()
    waiting = list(roots)
    while waiting:
        prefix = waiting.pop()
        if prefix in kept or prefix not in runs:
            continue
        kept.add(prefix)
        spec = runs[prefix].spec
        for parent in spec.inputs.values() if spec is not None else ():
            waiting += [parent.prefix, *by_digest.get(parent.digest, ())]
    return kept


def _of_checkout(project: Project) -> Iterator[str]:
    """Runs that artifacts/ of this checkout shows."""
    pointers = (project.workspace.pointer(stage) for stage in KINDS)
    yield from (pointer.prefix for pointer in pointers if pointer is not None)


def _of_versions(project: Project, runs: Mapping[str, _Run]) -> set[str]:
    """Bundles of registered versions; all bundles where the registry is switched off."""
    bundles = {prefix: run.run for prefix, run in runs.items() if prefix.startswith("runs/bundle/")}
    if project.tracking is None:
        return set(bundles)
    digests = {version.digest for version in open_aliases(project)[1].all()}
    return {prefix for prefix, run in bundles.items() if run is not None and run.digest in digests}


def _of_refs(project: Project, runs: Mapping[str, _Run]) -> Iterator[str]:
    """Runs of every branch and tag, here and as last seen at remotes."""
    refs = _git(project, "for-each-ref", "--format=%(objectname)", "refs/heads", "refs/tags", "refs/remotes")
    for commit in set(refs.decode().split()) | {"HEAD"}:
        params, lock = (_git(project, "cat-file", "blob", f"{commit}:{name}") for name in ("params.yaml", LOCK))
        if not params or not lock:
            continue
        try:
            sections = parse_yaml(params, f"params.yaml of {commit[:10]}")
        except ConfigError:
            _log.warning("params.yaml of %s cannot be read: nothing is kept for it", commit[:10])
            continue
        yield from _of_commit(sections if isinstance(sections, dict) else {}, digest_of(lock), runs)


def _of_commit(sections: Mapping[str, Any], lock: str, runs: Mapping[str, _Run]) -> Iterator[str]:
    """Stage by stage: runs with the commit's params whose inputs were made by runs that were found before."""
    made = {lock}
    for stage in KINDS:
        for prefix, run in runs.items():
            spec = run.spec
            if spec is None or spec.stage != stage or spec.identity.params != sections.get(stage):
                continue
            parents = {parent.digest for name, parent in spec.inputs.items() if name != "init"}
            if (parents or {spec.identity.inputs.get(LOCK, "")}) <= made:
                made.update({run.run.digest} if run.run is not None else ())
                yield prefix


def _git(project: Project, *arguments: str) -> bytes:
    return git(project.root, *arguments).stdout


def _is_recent(store: Store, run: _Run, before: float) -> bool:
    """Whether the run is under way, or ended since then; a damaged one counts as such."""
    if run.damaged:
        return True
    if run.run is not None:
        return run.run.record.ended_ms / 1000 > before
    folder = Prefix(store, run.prefix)
    found = read_lease(folder)
    if found is None:
        return bool(noted_jobs(folder))  # its first pod is still to come
    return found[0].heartbeat > before


def _plan_run(store: Store, run: _Run, kept: bool, needed: set[str], plan: Garbage) -> None:
    """Add all objects of a run that is not kept, and the checkpoints of a kept one that is finished."""
    sizes = {info.key: info.size for info in store.list(run.prefix)}
    if not kept:
        for key in _keys_of_run(list(sizes), needed):
            plan.add(run.prefix.split("/")[1], key, sizes[key])
    elif run.run is not None:
        for key, size in sizes.items():
            if key.startswith(f"{run.prefix}/checkpoints/"):
                plan.add("checkpoints", key, size)


def _plan_memos(store: Store, stage: str, needed: set[str], plan: Garbage) -> None:
    """Add memoised files that no kept run names, each behind the entry by which it is found."""
    folders: dict[str, list[Any]] = {}
    for info in store.list(f"memo/{stage}"):
        folders.setdefault(info.key.rpartition("/")[0], []).append(info)
    for infos in folders.values():
        if not any(info.key in needed for info in infos):
            for info in sorted(infos, key=lambda info: not info.key.endswith("/entry.json")):
                plan.add("cache", info.key, info.size)
