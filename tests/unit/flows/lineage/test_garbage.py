"""Garbage collection: what something stands on stays, what nothing stands on goes, in an order that a kill survives."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.errors import ConflictError, SupersededError
from components.store import Prefix, Store, open_store
from flows.execution.project import Project
from flows.identity.artifact import SCHEMA, FileEntry, digest_of
from flows.identity.fingerprint import LOCK
from flows.lineage import garbage
from flows.lineage.garbage import Garbage, collect_garbage
from flows.runs.lease import Lease, LeaseRecord, Watch, acquire, check_fence, read_lease
from flows.runs.process import Process
from flows.runs.records import CommittedRun, InputSpec, Spec, load_run
from flows.runs.stored import Memo
from flows.settings import Settings
from tests.support.made_runs import a_spec, make_run


class World:
    """A checkout under git and a store with hand-made runs, all of them long ended."""

    def __init__(self, root: Path) -> None:
        self.root = root
        settings = Settings(store=str(root / "store"), mlflow_uri="off")
        self.project = Project(root, settings)
        self.store = open_store(root / "store")
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=self.root, check=True, capture_output=True)

    def commit(self, lock: str, **sections: dict[str, Any]) -> None:
        (self.root / LOCK).write_text(lock)
        (self.root / "params.yaml").write_text(yaml.safe_dump(sections))
        self.git("add", LOCK, "params.yaml")
        self.git("commit", "-qm", "state")

    def make(
        self, stage: str, params: dict[str, Any], *parents: CommittedRun, lock: str = "", **more: Any
    ) -> CommittedRun:
        spec = _spec(stage, params, parents, lock)
        run = make_run(self.store, spec, {"file": f"{stage} {params} {lock}".encode()}, **more)
        self.store.put(f"{run.prefix}/checkpoints/1/step-1.pt", b"resume")
        return run

    def memo(self, stage: str, data: bytes) -> str:
        """A memoised file with its entry; returns its key."""
        folder = f"memo/{stage}/{digest_of(data)}"
        key = f"{folder}/{digest_of(data)}"
        self.store.put(key, data)
        entry = FileEntry(size=len(data), sha256=digest_of(data))
        memo = Memo(schema_version=SCHEMA, key="k", data=key, file=entry, versions={})
        self.store.put(f"{folder}/entry.json", memo.to_json())
        return key

    def gc(self, *, days: float = 7.0, delete: bool = True) -> Garbage:
        return collect_garbage(self.project, days=days, delete=delete)

    def has(self, *runs: CommittedRun) -> list[bool]:
        return [load_run(self.store, run.prefix) is not None for run in runs]


def _spec(stage: str, params: dict[str, Any], parents: tuple[CommittedRun, ...], lock: str) -> Spec:
    inputs: Mapping[str, str] = {run.stage: run.digest for run in parents} or {LOCK: digest_of(lock.encode())}
    spec = a_spec(stage, params=params, inputs=inputs)
    return spec.model_copy(
        update={"inputs": {run.stage: InputSpec(prefix=run.prefix, digest=run.digest) for run in parents}}
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_runs_of_branches_and_tags_stay_and_others_go(world: World) -> None:
    collect, encode = {"numerics": 1}, {"numerics": 1, "n": 0.5}
    old, new = world.make("collect", collect, lock="old"), world.make("collect", collect, lock="new")
    of_old, of_new, other = (
        world.make("encode", encode, old),
        world.make("encode", encode, new),
        world.make("encode", {"numerics": 2}, new),
    )
    nobody = world.make("collect", {"numerics": 9}, lock="new")
    world.commit("old", collect=collect, encode=encode)
    world.git("tag", "v1")
    world.commit("new", collect=collect, encode=encode)
    assert world.gc(delete=False).n_runs == 2
    assert all(world.has(old, new, of_old, of_new, other, nobody)), "a look changes nothing"
    world.gc()
    assert world.has(old, new, of_old, of_new, other, nobody) == [True, True, True, True, False, False]
    assert [info.key for info in world.store.list(nobody.prefix)] == [f"{nobody.prefix}/lease.json"]
    assert not list(Prefix(world.store, old.prefix).list("checkpoints")), "a finished run needs none"
    world.git("tag", "-d", "v1")
    world.git("checkout", "-q", "--orphan", "other")
    world.commit("new", collect=collect, encode=encode)
    world.git("branch", "-D", "main")
    world.gc()
    assert world.has(old, new, of_old, of_new) == [False, True, False, True]


def test_all_above_a_bundle_stay_also_when_no_branch_knows_them(world: World) -> None:
    collect = world.make("collect", {"numerics": 1}, lock="x")
    again = world.make("collect", {"numerics": 1, "same": True}, lock="x")
    rdm = world.make("rdm", {"numerics": 1}, collect)
    bundle = world.make("bundle", {"numerics": 1}, rdm)
    world.gc()
    assert world.has(collect, rdm, bundle, again) == [True, True, True, False]


def test_cached_parts_stay_with_the_runs_that_name_them(world: World) -> None:
    key, loose = world.memo("encode", b"shard"), world.memo("encode", b"loose")
    params = {"numerics": 1}
    spec = _spec("encode", params, (), "x")
    run = make_run(world.store, spec, {"shard": b"shard"}, memos={"shard": key})
    world.commit("x", encode=params)
    world.gc()
    assert world.has(run) == [True]
    assert world.store.head(loose) is None
    assert world.store.head(loose.replace("/data", "/entry.json")) is None
    world.commit("y", encode=params)
    world.git("checkout", "-q", "--orphan", "other")
    world.commit("y", encode=params)
    world.git("branch", "-D", "main")
    world.gc()
    assert world.has(run) == [False]
    assert world.store.head(key) is None


def test_what_is_under_way_or_recent_stays(world: World) -> None:
    spec = a_spec("encode", params={"numerics": 3})
    folder = Prefix(world.store, spec.prefix)
    folder.put("spec.json", spec.to_json())
    loose = world.memo("encode", b"just made by it")
    lease = acquire(folder, interval_s=10, watch=Watch())
    try:
        world.gc()
        assert folder.head("spec.json") is not None
        assert world.store.head(loose) is not None
    finally:
        lease.release()  # type: ignore[union-attr]
    world.gc(days=0)
    assert folder.head("spec.json") is None
    assert world.store.head(loose) is None


def _claim(folder: Prefix, *, interval_s: float) -> Lease:
    claim = acquire(folder, interval_s=interval_s, watch=Watch())
    assert isinstance(claim, Lease)
    return claim


def test_a_run_whose_holder_beats_stays_whatever_its_clock_says(world: World) -> None:
    parent = world.make("encode", {"numerics": 4})
    spec = _spec("rdm", {"numerics": 4}, (parent,), "")
    folder = Prefix(world.store, spec.prefix)
    folder.put("spec.json", spec.to_json())
    with _claim(folder, interval_s=0.05) as lease:
        found = world.gc(days=0)
        lease.check()
        assert (folder.head("spec.json") is not None, world.has(parent)) == (True, [True])
        assert found.n_runs == 0
    assert world.gc(days=0).n_runs == 2
    assert world.has(parent) == [False]


def test_fencing_numbers_go_on_after_a_run_was_deleted(world: World) -> None:
    spec = a_spec("encode", params={"numerics": 3})
    folder = Prefix(world.store, spec.prefix)
    folder.put("spec.json", spec.to_json())
    with _claim(folder, interval_s=0.05) as lease:
        holder = Process.current().model_copy(update={"host": "another"})
        lost = read_lease(folder)[0].model_copy(update={"holder": holder})
    folder.put(
        "lease.json", lost.model_copy(update={"released": False}).to_json()
    )  # it was paused, or its host is gone
    assert world.gc(days=0).n_runs == 1
    assert [info.key for info in folder.list("")] == ["lease.json"]
    assert world.gc(days=0).n_runs == 0, "a fencing number is no run"
    with _claim(folder, interval_s=10) as later:
        assert later.attempt > lease.attempt
        with pytest.raises(SupersededError):
            check_fence(folder, lease.attempt)


def test_a_run_that_waits_for_its_first_pod_stays(world: World) -> None:
    spec = a_spec("encode", params={"numerics": 3})
    folder = Prefix(world.store, spec.prefix)
    folder.put("spec.json", spec.to_json())
    folder.put("jobs/rcg-encode-1.json", b"{}")
    world.gc(days=0)
    assert folder.head("spec.json") is not None


def test_a_run_that_comes_to_life_meanwhile_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = world.make("encode", {"numerics": 4})
    spec = _spec("rdm", {"numerics": 4}, (parent,), "")
    folder = Prefix(world.store, spec.prefix)
    folder.put("spec.json", spec.to_json())
    leases: list[Lease] = []

    def too_late(run: Store, **given: Any) -> Lease | LeaseRecord:
        leases[:] = leases or [_claim(folder, interval_s=10)]
        return acquire(run, **given)

    monkeypatch.setattr(garbage, "acquire", too_late)
    with pytest.raises(ConflictError, match="came to life"):
        world.gc(days=0)
    assert world.has(parent) == [True], "children go first"
    leases[0].check()
    leases[0].release()
