"""Runs that no branch, tag, registered version or checkout uses, and files that no kept run needs: found, and deleted.

A run belongs to a branch or tag when its params and inputs are those of that commit, whatever code made it; the store
alone decides that, without a DVC cache. Runs that are under way, or ended a short while ago, stay.
"""

import logging
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from components.errors import RcgError
from components.store.base import Prefix, Store
from flows.execution.project import Project
from flows.gate.champion import open_aliases
from flows.identity.artifact import digest_of
from flows.identity.fingerprint import LOCK
from flows.pipeline.table import KINDS
from flows.runs.lease import read_lease
from flows.runs.lookup import read_spec
from flows.runs.records import MANIFEST, CommittedRun, Spec, load_run

_DAY_S = 86400
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

    keys: list[str] = field(default_factory=list)
    """In the order in which they are deleted: a run's manifest before its files, so that a kill leaves no torn run."""
    sizes: Counter[str] = field(default_factory=Counter)
    """Bytes by kind."""
    n_runs: int = 0
    n_kept: int = 0

    def add(self, kind: str, key: str, size: int) -> None:
        self.keys.append(key)
        self.sizes[kind] += size


def collect_garbage(project: Project, *, days: float, delete: bool) -> Garbage:
    """Find it, and with `delete` delete it. The caller holds the lock that keeps retraining out.

    Runs that ended or showed life less than `days` ago stay. Raises: RetryableError if the registry does not answer.
    """
    found = _find(project, time.time() - days * _DAY_S)
    if delete:
        for key in found.keys:
            project.store.delete(key)
    return found


def _find(project: Project, before: float) -> Garbage:
    store = project.store
    runs = {run.prefix: run for stage in KINDS for run in _all(store, stage)}
    kept = _closure(runs, {*_of_checkout(project), *_of_refs(project, runs), *_of_versions(project, runs)})
    kept |= _closure(runs, {prefix for prefix, run in runs.items() if _is_recent(store, run, before)})
    needed = {key for prefix in kept if (run := runs[prefix].run) is not None for key in run.keys.values()}
    plan = Garbage(n_kept=len(kept), n_runs=len(runs) - len(kept))
    for prefix in sorted(runs):
        _plan_run(store, runs[prefix], prefix in kept, needed, plan)
    for stage in ("collect", "encode"):
        if not any(runs[prefix].run is None for prefix in kept if prefix.startswith(f"runs/{stage}/")):
            _plan_memos(store, stage, needed, plan)
    return plan


def _all(store: Store, stage: str) -> Iterator[_Run]:
    for prefix in sorted({"/".join(info.key.split("/")[:3]) for info in store.list(f"runs/{stage}")}):
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
    command = ["git", "for-each-ref", "--format=%(objectname)", "refs/heads", "refs/tags", "refs/remotes"]
    for commit in set(_git(project, *command[1:]).decode().split()) | {"HEAD"}:
        params, lock = _git(project, "show", f"{commit}:params.yaml"), _git(project, "show", f"{commit}:{LOCK}")
        if not params or not lock:
            continue
        try:
            sections = yaml.safe_load(params)
        except yaml.YAMLError:
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
    return subprocess.run(["git", *arguments], cwd=project.root, capture_output=True, check=False).stdout


def _is_recent(store: Store, run: _Run, before: float) -> bool:
    """Whether the run is under way, or ended since then; a damaged one counts as such."""
    if run.damaged:
        return True
    if run.run is not None:
        return run.run.record.ended_ms / 1000 > before
    found = read_lease(Prefix(store, run.prefix))
    return found is not None and found[0].heartbeat > before


def _plan_run(store: Store, run: _Run, kept: bool, needed: set[str], plan: Garbage) -> None:
    """Add all objects of a run that is not kept, and the checkpoints of a kept one that is finished."""
    stage = run.prefix.split("/")[1]
    infos = list(store.list(run.prefix))
    if not kept:
        for info in sorted(infos, key=lambda info: not info.key.endswith(f"/{MANIFEST}")):
            if info.key not in needed:
                plan.add(stage, info.key, info.size)
    elif run.run is not None:
        for info in infos:
            if info.key.startswith(f"{run.prefix}/checkpoints/"):
                plan.add("checkpoints", info.key, info.size)


def _plan_memos(store: Store, stage: str, needed: set[str], plan: Garbage) -> None:
    """Add memoised files that no kept run names, each behind the entry by which it is found."""
    folders: dict[str, list[Any]] = {}
    for info in store.list(f"memo/{stage}"):
        folders.setdefault(info.key.rpartition("/")[0], []).append(info)
    for infos in folders.values():
        if not any(info.key in needed for info in infos):
            for info in sorted(infos, key=lambda info: not info.key.endswith("/entry.json")):
                plan.add("cache", info.key, info.size)
